"""Features of another toolkit or model: anyone's `feats.scp`, checked against the corpus.

    utterance /path/feats.ark:123      a Kaldi matrix [frames, width], compressed or not

Commands in it are not executed, and nothing but binary matrices is read: kaldiio itself would run a command, and load
a pickle.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from kaldiio.matio import read_kaldi

from local.errors import InputError
from local.manifest import read_table

TOLERANCE = 0.05  # of its duration, or SPARE frames, by which an utterance may be off: toolkits treat edges unlike
SPARE = 3


def check_scp(scp: str | None) -> None:
    """Raise InputError unless the setting names what is there."""
    if not isinstance(scp, str) or not scp or not Path(scp).exists():
        raise InputError(
            f"autoencoder.scp={scp}: expected a feats.scp with all utterances, or a folder with <split>/feats.scp; "
            "name one that is there"
        )


class External:
    """The matrices of one scp file, or of `<split>/feats.scp` below a folder, a row each `frame_shift` seconds.

    That is a multiple of `own`, the shift of the corpus's own features. `files` holds what was read.
    """

    def __init__(self, scp: str | None, frame_shift: float, own: float) -> None:
        check_scp(scp)
        if (
            not isinstance(frame_shift, int | float)
            or not own <= frame_shift < math.inf
            or abs(frame_shift / own - round(frame_shift / own)) > 0.01
        ):
            raise InputError(f"autoencoder.frame_shift={frame_shift}: expected a multiple of {own}, the features' own")
        self.scp, self.frame_shift = Path(scp), frame_shift
        self.widths: dict[int, list[str]] = {}
        self.errors: list[str] = []
        self.files: set[str] = set()

    def rows(self, split: str, durations: dict[str, float]) -> Iterator[tuple[str, np.ndarray]]:
        """Each utterance that `durations` (in seconds) names, and its frames [T, width], of which all is well."""
        scp = self.scp / split / "feats.scp" if self.scp.is_dir() else self.scp
        self.files.add(str(scp))
        try:
            places = read_table(scp)
        except InputError as error:
            self.errors.append(str(error))
            return
        for key, duration in durations.items():
            try:
                if key not in places:
                    raise InputError(f"{scp}: no utterance {key} of {split}; extract its features too")
                frames = self._read(places[key], f"{scp}: {key}")
                self._check(frames, duration, f"{scp}: {key}")
            except InputError as error:
                self.errors.append(str(error))
                continue
            yield key, frames

    def complete(self) -> None:
        """Raise InputError with a line for each utterance that was missing, unreadable or not as expected."""
        usual = max(self.widths, key=lambda width: len(self.widths[width]), default=0)
        for width, places in self.widths.items():
            if width != usual:
                self.errors += [f"{where}: {width} dimensions, expected {usual} as elsewhere" for where in places]
        if self.errors:
            raise InputError("\n".join(self.errors))

    def _read(self, place: str, where: str) -> np.ndarray:
        if "|" in place:
            raise InputError(f"{where}: {place!a} is a command, and commands are not executed; write its output out")
        path, _, offset = place.rpartition(":")
        path, offset = (path, int(offset)) if path and offset.isdigit() else (place, 0)
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                if file.read(2) != b"\0B":
                    raise InputError(f"{where}: no binary Kaldi matrix at {place}; write one there, as copy-feats does")
                file.seek(offset)
                frames = np.asarray(read_kaldi(file), dtype=np.float32)
        except OSError as error:
            raise InputError(f"{where}: {path} cannot be read ({error.strerror}); paths are relative to here") from None
        except InputError:
            raise
        except Exception as error:  # kaldiio raises many kinds for a cut or foreign matrix
            raise InputError(f"{where}: a cut matrix at {place} ({type(error).__name__}); write it again") from None
        self.files.add(path)
        return frames

    def _check(self, frames: np.ndarray, duration: float, where: str) -> None:
        if frames.ndim != 2 or not frames.size or not np.isfinite(frames).all():
            raise InputError(f"{where}: shape {frames.shape}, or values that are not finite; expected numbers [T, D]")
        self.widths.setdefault(frames.shape[1], []).append(where)
        expected = duration / self.frame_shift
        if abs(len(frames) - expected) > max(SPARE, TOLERANCE * expected):
            raise InputError(
                f"{where}: {len(frames)} frames for {duration:.2f} s, expected about {expected:.0f}; "
                "set autoencoder.frame_shift to theirs, in seconds"
            )
