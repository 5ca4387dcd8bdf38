"""Audio files, through libsndfile; nothing found in a data directory is ever executed."""

import math
import re
from pathlib import Path

import numpy as np
import soundfile

from local.errors import InputError

# The two commands that Kaldi's own recipes write; the file they would decode is read directly.
_FLAC = re.compile(r"flac\s+-c\s+-d\s+-s\s+(\S+)\s*\|")
_SPH2PIPE = re.compile(r"(?:\S*/)?sph2pipe\s+(?:-f\s+wav\s+)?(?:-p\s+)?(?:-c\s+1\s+)?(\S+)\s*\|")


def path_of(entry: str) -> str:
    """The file behind one `wav.scp` entry, which is a path or one of the two standard commands."""
    if not entry.endswith("|"):
        return entry
    for pattern in (_FLAC, _SPH2PIPE):
        if found := pattern.fullmatch(entry):
            return found[1]
    raise InputError(
        f"wav.scp: {entry!r} is a command, and commands are not executed; "
        "expected a path, 'flac -c -d -s PATH |' or 'sph2pipe -f wav PATH |'"
    )


def duration(path: str | Path, sample_rate: int) -> float:
    """Seconds of audio by the header; raises InputError unless it is mono at `sample_rate` Hz."""
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        size = Path(path).stat().st_size if Path(path).exists() else None
        found = "the file is missing" if size is None else "the file is empty" if size == 0 else str(error)
        raise InputError(f"{path}: unreadable audio ({found}); restore or remove it") from None
    if info.samplerate != sample_rate or info.channels != 1:
        raise InputError(
            f"{path}: {info.channels} channel(s) at {info.samplerate} Hz, expected 1 at {sample_rate} Hz; convert it"
        )
    return info.frames / info.samplerate


def read(
    path: str | Path, sample_rate: int, start: float = 0.0, duration: float | None = None, resample: bool = False
) -> np.ndarray:
    """Samples [N], float32 in [-1, 1], of mono audio at `sample_rate` Hz; another rate is an error or resampled.

    `start` and `duration` in seconds cut a part out of a recording. Raises InputError if the file does not decode or
    has another format.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate, channels = file.samplerate, file.channels
            if channels != 1 or (rate != sample_rate and not resample):
                raise InputError(
                    f"{path}: {channels} channel(s) at {rate} Hz, expected 1 at {sample_rate} Hz; convert it"
                )
            first = min(round(start * rate), file.frames)
            file.seek(first)
            count = -1 if duration is None else round((start + duration) * rate) - first
            samples = file.read(count, dtype="float32")
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: audio does not decode ({error}); restore or remove it") from None
    if rate == sample_rate:
        return samples
    from scipy.signal import resample_poly  # a polyphase filter; imported late, for few corpora need it

    common = math.gcd(rate, sample_rate)
    return resample_poly(samples, sample_rate // common, rate // common).astype(np.float32, copy=False)
