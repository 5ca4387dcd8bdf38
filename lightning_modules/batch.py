"""Batches as pure functions of (seed, step), cut from an archive.

B batch, T frames (rounded up, so that few shapes occur), D width, L labels.
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch

from local.frames import Frames

ROUND = 16  # frames to which T is rounded up


class Rows(NamedTuple):
    """The rows of a batch that one of several processes has: `count` of `whole`, from `first` on.

    A batch may have fewer rows than there are processes. Then the first one stands in, and counts for nothing.
    """

    first: int
    count: int
    whole: int

    @property
    def taken(self) -> slice:
        return slice(self.first, self.first + max(1, self.count))


def rows_of(whole: int, rank: int, processes: int) -> Rows:
    """What process `rank` of so many has of a batch of `whole` rows."""
    first, end = (whole * number // processes for number in (rank, rank + 1))
    return Rows(first if first < end else 0, end - first, whole)


class Batch(NamedTuple):
    """`features` [B, T, D], zero behind each of `lengths` [B]; `labels` [B, L] with `label_lengths` [B], if any.

    `target` [B, T, D] are the clean features where `features` were corrupted. Where an update's batch does not fit into
    memory it is split, and this is its `part`-th part; `share` weighs its loss, and is 1 on average over the parts.
    Where several processes share a training, these are `rows` of its batch, and T is that of the whole.
    """

    ids: list[str]
    features: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor | None = None
    label_lengths: torch.Tensor | None = None
    target: torch.Tensor | None = None
    part: int = 0
    share: float = 1.0
    rows: Rows | None = None

    def split(self, parts: int) -> "Iterator[Batch]":
        """`parts` batches that make this one together; where it has fewer utterances, some count for nothing."""
        sizes = self.lengths if self.label_lengths is None else self.label_lengths  # what a loss is a mean over
        for part, rows in enumerate(torch.arange(len(self.ids)).tensor_split(parts)):
            share = parts * float(sizes[rows].sum() / sizes.sum())
            rows = rows if len(rows) else torch.tensor([0])
            frames = -(-int(self.lengths[rows].max()) // ROUND) * ROUND
            whole = (self.features[:, :frames], self.lengths, self.labels, self.label_lengths)
            target = None if self.target is None else self.target[rows, :frames]
            tensors = (None if one is None else one[rows] for one in whole)
            yield Batch([self.ids[i] for i in rows.tolist()], *tensors, target, part, share)

    @property
    def clean(self) -> torch.Tensor:
        """What is to be reconstructed, [B, T, D]."""
        return self.features if self.target is None else self.target


def seed_of(*what: object) -> int:
    """A seed that is a function of what it is for, such as (seed, "step", 17)."""
    return zlib.crc32(repr(what).encode())


def padding_mask(lengths: torch.Tensor, frames: int) -> torch.Tensor:
    """[B, T], true where a frame belongs to its utterance."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def moments(features: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation [B, 1, D] of each utterance's own frames, as local/archive.py takes them."""
    count = inside.sum(1, keepdim=True)
    mean = ((features * inside).sum(1, keepdim=True, dtype=torch.float64) / count).float()  # of a constant, just that
    squares = torch.linalg.vector_norm((features - mean).mul_(inside), dim=1, keepdim=True).square()
    return mean, (squares / count).clamp(min=1e-8).sqrt()


class Batcher:
    """Cuts batches of at most `batch_frames` padded frames out of an archive on the training device.

    `labels` holds one list of label indices an utterance. Excerpts of at most `crop` frames are drawn from
    longer utterances.
    """

    def __init__(
        self,
        data: Frames,
        batch_frames: int,
        seed: int,
        crop: int | None = None,
        labels: list[list[int]] | None = None,
    ) -> None:
        self.data, self.batch_frames, self.seed = data, batch_frames, seed
        self.lengths = data.lengths if crop is None else data.lengths.clamp(max=crop)
        self.labels = labels
        self.plan = lru_cache(maxsize=2)(self._plan)
        self.first = [0]  # the step at which each epoch begins, as far as it is known

    def _plan(self, epoch: int | None) -> list[list[int]]:
        """The utterances of each batch of an epoch, in shuffled order; in order of length for None."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
        # A little out of order, each meets others in every epoch; 0.2 pads twice as much, and learns no better.
        jitter = 0 if epoch is None else 0.05 * torch.rand(len(self.lengths), generator=generator)
        order = torch.argsort(self.lengths * (1 + jitter), stable=True).tolist()
        batches, longest = [[]], 0
        for index in order:
            longest = max(longest, int(self.lengths[index]))
            if batches[-1] and longest * (len(batches[-1]) + 1) > self.batch_frames:
                batches.append([])
                longest = int(self.lengths[index])
            batches[-1].append(index)
        if epoch is None:
            return batches
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def at(self, step: int, rank: int = 0, processes: int = 1) -> Batch:
        """The batch of one training step, or the rows of it that process `rank` of several has."""
        while self.first[-1] <= step:
            self.first.append(self.first[-1] + len(self.plan(len(self.first) - 1)))
        epoch = bisect_right(self.first, step) - 1
        indices = self.plan(epoch)[step - self.first[epoch]]
        return self.cut(indices, torch.Generator().manual_seed(seed_of(self.seed, "crop", step)), rank, processes)

    def all(self, rank: int = 0, processes: int = 1) -> Iterator[Batch]:
        """Every utterance once, from its first frame, in order of length; of each batch, `rank`'s rows."""
        return (self.cut(indices, None, rank, processes) for indices in self.plan(None))

    def cut(self, indices: list[int], generator: torch.Generator | None, rank: int = 0, processes: int = 1) -> Batch:
        """One batch, or `rank`'s rows of it; excerpts begin at random if there is a generator."""
        index = torch.tensor(indices)
        lengths = self.lengths[index]
        begin = torch.zeros_like(lengths)
        if generator is not None:
            spare = self.data.lengths[index] - lengths
            begin = (torch.rand(len(index), generator=generator) * (spare + 1)).long()
        rows = rows_of(len(indices), rank, processes)
        features, lengths, target = self.features(index, begin, lengths, generator, rows)
        indices, rows = indices[rows.taken], rows if processes > 1 else None
        ids, device = [self.data.ids[i] for i in indices], features.device
        if self.labels is None:
            return Batch(ids, features, lengths, target=target, rows=rows)
        labels = [torch.tensor(self.labels[i]) for i in indices]
        return Batch(
            ids,
            features,
            lengths,
            torch.nn.utils.rnn.pad_sequence(labels, batch_first=True).to(device),
            torch.tensor([len(one) for one in labels], device=device),
            rows=rows,
        )

    def features(
        self,
        index: torch.Tensor,
        begin: torch.Tensor,
        lengths: torch.Tensor,
        generator: torch.Generator | None,
        rows: Rows,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Features, lengths and target of `rows` of a batch: `lengths` [B] of utterances `index` [B] from `begin` [B].

        All three are in frames, and of the whole batch, whose T the rows get.
        """
        frames = -(-int(lengths.max()) // ROUND) * ROUND
        device = self.data.frames.device
        index, begin, lengths = (each[rows.taken] for each in (index, begin, lengths))
        source, offsets = self.data.among(index)
        lengths, offsets = lengths.to(device), (offsets + begin).to(device)
        inside = padding_mask(lengths, frames)
        place = offsets[:, None] + torch.arange(frames, device=device) * inside
        features = source.index_select(0, place.flatten()).view(*place.shape, -1).float()
        features *= inside[:, :, None]  # in place: three times as fast as a gather and a copy
        return features, lengths, None
