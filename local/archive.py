"""Archives of frames: Kaldi's ark and scp, readable by Kaldi, ESPnet, kaldiio and lhotse.

    feats.<n>.ark  feats.scp     float32 matrices [frames, width], raw
    cmvn.<n>.ark   cmvn.scp      by utterance, Kaldi's [2, width + 1]: sums and count, sums of squares
    utt2num_frames utt2spk       as in Kaldi
    frame_shift                  seconds from one frame to the next

CMVN is applied when an archive is read.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import kaldiio
import numpy as np
import torch

from local.errors import InputError
from local.manifest import read_table

TABLES = ("feats.scp", "cmvn.scp", "utt2num_frames")


class Writer:
    """One shard of an archive, written into `partial`; its scp lines name `final`, where `partial` will be."""

    def __init__(self, partial: Path, final: Path, number: int) -> None:
        self.partial, self.final, self.number = partial, final, number

    def __enter__(self) -> "Writer":
        self.partial.mkdir(parents=True, exist_ok=True)
        self.files = {
            name: open(self.partial / f"{name}.{self.number}.ark", "wb")  # noqa: SIM115
            for name in ("feats", "cmvn")
        }
        self.tables = {
            name: open(self.partial / f"{name}.{self.number}", "w", encoding="utf-8")  # noqa: SIM115
            for name in TABLES
        }
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self.files.values(), *self.tables.values()):
            file.close()

    def write(self, key: str, frames: np.ndarray) -> None:
        """Append one utterance's frames, [frames, width]."""
        double = frames.astype(np.float64)
        sums = np.zeros((2, frames.shape[1] + 1))
        sums[0, :-1], sums[1, :-1], sums[0, -1] = double.sum(0), (double**2).sum(0), len(frames)
        for name, matrix in (("feats", np.ascontiguousarray(frames, dtype=np.float32)), ("cmvn", sums)):
            file = self.files[name]
            offset = file.tell() + len(key) + 1  # Kaldi's offsets point behind the key
            kaldiio.save_ark(file, {key: matrix})
            path = self.final / f"{name}.{self.number}.ark"
            self.tables[f"{name}.scp"].write(f"{key} {path}:{offset}\n")
        self.tables["utt2num_frames"].write(f"{key} {len(frames)}\n")


def join(partial: Path, frame_shift: float, speakers: dict[str, str]) -> None:
    """Join the tables of an archive's shards, in the order of the shards, and complete it."""
    for name in TABLES:
        pieces = sorted(partial.glob(f"{name}.[0-9]*"), key=lambda p: int(p.suffix[1:]))
        (partial / name).write_bytes(b"".join(piece.read_bytes() for piece in pieces))
        for piece in pieces:
            piece.unlink()
    (partial / "utt2spk").write_text("".join(f"{u} {s}\n" for u, s in speakers.items()), encoding="utf-8")
    (partial / "frame_shift").write_text(f"{frame_shift}\n", encoding="utf-8")


@dataclass(frozen=True)
class Frames:
    """An archive in memory, all utterances end to end.

    `frames` [N, width]; `offsets` and `lengths` [U], the place of each of `ids` in it.
    """

    ids: list[str]
    speakers: list[str]
    frames: torch.Tensor
    offsets: torch.Tensor
    lengths: torch.Tensor
    frame_shift: float

    @property
    def width(self) -> int:
        return self.frames.shape[1]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Frames":
        """The same archive with `function` applied to its frames [N, width]."""
        return replace(self, frames=function(self.frames))

    def select(self, indices: list[int]) -> "Frames":
        """The same archive, offering only some of its utterances."""
        return replace(
            self,
            ids=[self.ids[i] for i in indices],
            speakers=[self.speakers[i] for i in indices],
            offsets=self.offsets[indices],
            lengths=self.lengths[indices],
        )


def frame_shift(directory: Path) -> float:
    """Seconds from one frame of an archive to the next."""
    return float((directory / "frame_shift").read_text(encoding="utf-8"))


def read(directory: Path, cmvn: str, ids: list[str] | None = None) -> Frames:
    """Read an archive, or its utterances `ids` in that order, and normalize each dimension to mean 0, variance 1.

    `cmvn` says over what mean and variance are taken: `utterance`, `speaker`, or `global`, the `pretrain` archive
    beside this one. Raises InputError for another word or an unknown utterance.
    """
    lengths, speakers = read_table(directory / "utt2num_frames"), read_table(directory / "utt2spk")
    scp = read_table(directory / "feats.scp")
    ids = list(scp) if ids is None else ids
    for key in ids:
        if key not in scp:
            raise InputError(f"{directory}/feats.scp: no utterance {key}; run stage 2 (features) again")
    counts = torch.tensor([int(lengths[key]) for key in ids])
    offsets = torch.cumsum(counts, 0) - counts
    normalize = _normalizer(directory, cmvn, speakers)
    frames = None
    for key, start, count in zip(ids, offsets.tolist(), counts.tolist(), strict=True):
        matrix = kaldiio.load_mat(scp[key])
        if frames is None:
            frames = torch.empty(int(counts.sum()), matrix.shape[1])
        mean, deviation = normalize(key)
        frames[start : start + count] = torch.from_numpy((matrix - mean) / deviation)
    return Frames(ids, [speakers[key] for key in ids], frames, offsets, counts, frame_shift(directory))


def statistics(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [width] over all frames of an archive, float32."""
    return _moments(sum(kaldiio.load_mat(entry) for entry in read_table(directory / "cmvn.scp").values()))


def _moments(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = sums[0, -1]
    mean = sums[0, :-1] / count
    variance = np.maximum(sums[1, :-1] / count - mean**2, 1e-8)  # a constant dimension stays finite
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _normalizer(directory: Path, cmvn: str, speakers: dict[str, str]) -> Callable:
    """A function from an utterance to the mean and deviation that normalize it."""
    if cmvn == "global":
        moments = statistics(directory.parent / "pretrain")
        return lambda key: moments
    sums = {key: kaldiio.load_mat(entry) for key, entry in read_table(directory / "cmvn.scp").items()}
    if cmvn == "utterance":
        return lambda key: _moments(sums[key])
    if cmvn == "speaker":
        pooled: dict[str, np.ndarray] = {}
        for key, value in sums.items():
            pooled[speakers[key]] = pooled.get(speakers[key], 0) + value
        moments = {speaker: _moments(value) for speaker, value in pooled.items()}
        return lambda key: moments[speakers[key]]
    raise InputError(f"cmvn={cmvn!r}; expected utterance, speaker or global")
