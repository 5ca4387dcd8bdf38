"""The base of all autoencoders."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch

from lightning_modules.batch import Batch, padding_mask
from lightning_modules.training import Training


class Autoencoder(Training, ABC):
    """`encode` and `decode`, and the training that reconstructs what `corrupt` hides.

    `dim` is the bottleneck's width, `stride` the frames in to one vector out. If it is not `trained`, it keeps the
    weights it begins with, whatever its other settings say: the control for what pretraining gave.
    """

    monitor = "val_loss"
    dim: int
    stride: int

    def __init__(self, *, trained: bool, updates: int, **training) -> None:
        super().__init__(updates=updates if trained else 0, **training)

    def initialize(self, batches: Iterable[Batch]) -> None:
        """What is computed from all of the unlabeled audio before the first update: nothing."""

    @abstractmethod
    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, T, D] frames to the bottleneck [B, ceil(T / stride), dim] and its lengths."""

    @abstractmethod
    def decode(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The bottleneck back to [B, T, D]; T is a multiple of the stride."""

    def corrupt(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The encoder's input [B, T, D], and true in each cell [B, T, D] that is to be reconstructed."""
        return features, torch.ones_like(features, dtype=torch.bool)

    def error(self, output: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """The reconstruction error of each cell, [B, T, D]."""
        return (output - features) ** 2

    def loss(self, batch: Batch) -> torch.Tensor:
        """The mean error over the cells to be reconstructed, padding left out."""
        corrupted, cells = self.corrupt(batch.features)
        output = self.decode(*self.encode(corrupted, batch.lengths))[:, : batch.features.shape[1]]
        cells = cells & padding_mask(batch.lengths, cells.shape[1])[:, :, None]
        return (self.error(output, batch.features) * cells).sum() / cells.sum().clamp(min=1)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """One update's loss."""
        return self.finite(self.loss(batch), batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same loss on dev."""
        self.log(
            "val_loss",
            self.loss(batch),
            on_step=False,
            on_epoch=True,
            logger=False,
            batch_size=int(batch.lengths.sum()),
        )
