"""The frames of an archive: all in memory, or read anew for each batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch


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

    def among(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames among which those of utterances `index` [B] are, and where each of these begins [B]."""
        return self.frames, self.offsets[index]


@dataclass(frozen=True)
class OnDisk(Frames):
    """An archive of which nothing stays in memory: it does not fit, or several processes share a training.

    Any of these may come to need any utterance, and reads those of its own rows of a batch when it cuts them; the
    operating system keeps one copy of the files for all processes of a machine. `frames` [0, width] is empty, and
    `offsets` have no meaning. `into(key, out)` reads an utterance, of `sizes[key]` frames, into an array, and
    `change` is what `map` was given.
    """

    sizes: dict[str, int]
    into: Callable[[str, np.ndarray], None]
    dtype: torch.dtype = torch.float32
    tail: int = 0  # zeros behind the last utterance
    change: Callable[[torch.Tensor], torch.Tensor] = lambda frames: frames

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "OnDisk":
        """See the base; `function` is applied to what is read."""
        return replace(self, frames=function(self.frames), change=lambda frames: function(self.change(frames)))

    def among(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base; these frames alone."""
        keys = [self.ids[i] for i in index.tolist()]
        starts = [0, *accumulate(self.sizes[key] for key in keys)]
        frames = torch.zeros(starts[-1] + self.tail, self.width, dtype=self.dtype)
        for key, start, end in zip(keys, starts, starts[1:], strict=False):
            self.into(key, frames[start:end].numpy())
        return self.change(frames), torch.tensor(starts[:-1])

    def in_memory(self) -> Frames:
        """The same archive, read whole."""
        frames, offsets = self.among(torch.arange(len(self.ids)))
        return Frames(self.ids, self.speakers, frames, offsets, self.lengths, self.frame_shift)
