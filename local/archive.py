"""Archives of frames: Kaldi's ark and scp, readable by Kaldi, ESPnet, kaldiio and lhotse.

    feats.<n>.ark  feats.scp     float32 matrices [frames, width], raw
    wav.<n>.ark    wav.scp       16-bit audio, if `features.store` says so
    cmvn.<n>.ark   cmvn.scp      by utterance, Kaldi's [2, width + 1]: sums and count, sums of squares
    utt2num_frames utt2spk       as in Kaldi
    left_out                     a line for each utterance that is not in it and why, if any
    frame_shift                  seconds from one frame to the next; written last

CMVN is applied when an archive is read.
"""

import os
import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import kaldiio
import numpy as np
import torch

from local.ark import Reader
from local.errors import InputError
from local.frames import Frames, OnDisk
from local.manifest import read_table
from local.marker import write_atomically
from local.quality import DEAD


class Writer:
    """One shard of an archive, written into `partial`; its scp lines name `final`, where `partial` will be.

    Its files get their names when the shard is complete, utt2num_frames last: killed before, it is not `done`. What
    they say of utterances is in byte order, as in Kaldi, whatever order these were written in.
    """

    def __init__(self, partial: Path, final: Path, number: int) -> None:
        self.partial, self.final, self.number = partial, final, number

    @property
    def done(self) -> bool:
        return (self.partial / f"utt2num_frames.{self.number}").exists()

    def __enter__(self) -> "Writer":
        self.partial.mkdir(parents=True, exist_ok=True)
        self.arks: dict[str, BinaryIO] = {}
        self.tables: dict[str, list[str]] = {"utt2num_frames": []}
        return self

    def __exit__(self, failed: type | None, *_: object) -> None:
        for file in self.arks.values():
            file.close()
        if failed:
            return
        names = [f"{name}.{self.number}.ark" for name in self.arks]
        for name, lines in reversed(self.tables.items()):
            if name != "left_out":
                lines.sort()
            names.append(f"{name}.{self.number}")
            self._aside(names[-1]).write_text("".join(lines), encoding="utf-8")
        for name in names:
            self._aside(name).rename(self.partial / name)

    def leave_out(self, lines: list[str]) -> None:
        """Record what is wrong with utterances that are not written, a line each."""
        if lines:
            self.tables["left_out"] = [f"{line}\n" for line in lines]

    def _aside(self, name: str) -> Path:
        """The process is named, for one that a killed run left must not write into the files of the next."""
        return self.partial / f"{name}.{os.getpid()}.tmp"

    def write(
        self, key: str, frames: np.ndarray, speaker: str, audio: tuple[int, np.ndarray] | None = None, **more: str
    ) -> None:
        """Append one utterance's frames [frames, width]; `more` goes into tables of these names.

        `audio`, if it is to be stored, are its sample rate in Hz and its samples [N], int16.
        """
        double = frames.astype(np.float64)
        sums = np.zeros((2, frames.shape[1] + 1))
        sums[0, :-1], sums[1, :-1], sums[0, -1] = double.sum(0), np.einsum("tw,tw->w", double, double), len(frames)
        stored = {"feats": np.ascontiguousarray(frames, dtype=np.float32), "cmvn": sums}
        for name, value in (stored | ({"wav": audio} if audio else {})).items():
            if name not in self.arks:
                self.arks[name] = open(self._aside(f"{name}.{self.number}.ark"), "wb")  # noqa: SIM115
            file = self.arks[name]
            offset = file.tell() + len(key) + 1  # Kaldi's offsets point behind the key
            kaldiio.save_ark(file, {key: value})
            more[f"{name}.scp"] = f"{self.final / name}.{self.number}.ark:{offset}"
        for name, value in {"utt2num_frames": len(frames), "utt2spk": speaker, **more}.items():
            self.tables.setdefault(name, []).append(f"{key} {value}\n")


def joined(partial: Path) -> bool:
    """Whether a former run completed this archive."""
    return (partial / "frame_shift").exists()


def join(partial: Path, frame_shift: float) -> None:
    """Join the tables of an archive's shards, in the order of the shards, and complete it."""
    pieces = [path for path in partial.iterdir() if path.suffix[1:].isdigit()]
    pieces.sort(key=lambda path: (path.stem, int(path.suffix[1:])))
    if not joined(partial):
        for name, group in groupby(pieces, lambda path: path.stem):
            with open(aside := partial / f"{name}.tmp", "wb") as table:
                for piece in group:
                    with open(piece, "rb") as file:
                        shutil.copyfileobj(file, table)
            aside.rename(partial / name)
        write_atomically(partial / "frame_shift", f"{frame_shift}\n")
    for piece in pieces:
        piece.unlink()


def frame_shift(directory: Path) -> float:
    """Seconds from one frame of an archive to the next."""
    return float((directory / "frame_shift").read_text(encoding="utf-8"))


def lengths(directory: Path, ids: list[str]) -> list[int]:
    """The frames of each of an archive's utterances `ids`."""
    table = read_table(directory / "utt2num_frames")
    return [int(table[key]) for key in ids]


def read(directory: Path, cmvn: str, ids: list[str] | None = None, held: bool = True) -> Frames:
    """Read an archive, or its utterances `ids` in that order, and normalize each dimension to mean 0, variance 1.

    `cmvn` says over what mean and variance are taken: `utterance`, `speaker`, `global`, which is the `pretrain`
    archive beside this one, or `none`, which leaves all as it is. If it is not `held` in memory, it is read for each
    batch. Raises InputError for another word or an unknown utterance.
    """
    lengths, speakers = read_table(directory / "utt2num_frames"), read_table(directory / "utt2spk")
    reader = Reader(directory / "feats.scp")
    ids = list(reader.places) if ids is None else ids
    width = reader.shape(ids[0])[1]
    counts = torch.tensor([int(lengths.get(key, 0)) for key in ids])
    normalize = _normalizer(directory, cmvn, speakers)

    def into(key: str, part: np.ndarray) -> None:
        reader.into(key, part)
        mean, deviation = normalize(key)
        part -= mean
        part /= deviation

    nowhere, none = torch.zeros_like(counts), torch.empty(0, width)
    named, sizes = (ids, [speakers[key] for key in ids]), dict(zip(ids, counts.tolist(), strict=True))
    found = OnDisk(*named, none, nowhere, counts, frame_shift(directory), sizes, into)
    return found.in_memory() if held else found


def read_audio(directory: Path, ids: list[str], sample_rate: int, held: bool = True) -> Frames:
    """The stored samples of utterances `ids`, as frames [N, 1], int16, a sample each; `held` as in `read`.

    Zeros follow, so that from each utterance's beginning a stretch as long as the longest can be cut out. Raises
    InputError if the archive stores none.
    """
    if not (directory / "wav.scp").exists():
        raise InputError(f"{directory}: no stored audio there, which augmentation needs; set features.store=audio")
    reader = Reader(directory / "wav.scp")
    counts = torch.tensor([reader.shape(key)[0] for key in ids])
    speakers, tail = read_table(directory / "utt2spk"), int(counts.max())
    nowhere, none = torch.zeros_like(counts), torch.empty(0, 1, dtype=torch.int16)
    named, sizes = (ids, [speakers[key] for key in ids]), dict(zip(ids, counts.tolist(), strict=True))
    found = OnDisk(*named, none, nowhere, counts, 1 / sample_rate, sizes, reader.into, none.dtype, tail)
    return found.in_memory() if held else found


def moments(directory: Path, cmvn: str, ids: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the deviation that `read` normalizes each utterance by, [U, 1, width]; [U, 1, 1] for `none`."""
    normalize = _normalizer(directory, cmvn, read_table(directory / "utt2spk"))
    pairs = zip(*map(normalize, ids), strict=True)
    return tuple(torch.from_numpy(np.array(each, np.float32)).view(len(ids), 1, -1) for each in pairs)


def statistics(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [width] over all frames of an archive, float32.

    A dead unit has the largest deviation: divided by its own, what a fine-tuned encoder makes of it later would be
    thousands of times as large as the others.
    """
    reader = Reader(directory / "cmvn.scp")
    mean, deviation = _moments(sum(reader[key] for key in reader.places))
    return mean, np.where(deviation > DEAD * deviation.max(), deviation, deviation.max())


def _moments(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = sums[0, -1]
    mean = sums[0, :-1] / count
    variance = np.maximum(sums[1, :-1] / count - mean**2, 1e-8)  # a constant dimension stays finite
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _normalizer(directory: Path, cmvn: str, speakers: dict[str, str]) -> Callable:
    """A function from an utterance to the mean and deviation that normalize it."""
    if cmvn == "none":
        return lambda key: (0.0, 1.0)
    if cmvn == "global":
        moments = statistics(directory.parent / "pretrain")
        return lambda key: moments
    reader = Reader(directory / "cmvn.scp")
    if cmvn == "utterance":
        return lambda key: _moments(reader[key])
    if cmvn == "speaker":
        pooled: dict[str, np.ndarray] = {}
        for key in reader.places:
            pooled[speakers[key]] = pooled.get(speakers[key], 0) + reader[key]
        moments = {speaker: _moments(value) for speaker, value in pooled.items()}
        return lambda key: moments[speakers[key]]
    raise InputError(f"cmvn={cmvn!r}; expected none, utterance, speaker or global")
