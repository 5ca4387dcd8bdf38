"""The base of all autoencoders."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from lightning_modules.batch import Batch, Batcher, padding_mask
from lightning_modules.training import Training
from local.errors import InputError

ERRORS = {
    "mse": nn.functional.mse_loss,
    "l1": nn.functional.l1_loss,
    "bce": nn.functional.binary_cross_entropy_with_logits,
}
RANGE = 3.0  # standard deviations that binary cross-entropy maps to [0, 1]


class Autoencoder(Training, ABC):
    """`encode` and `decode`, and the training that reconstructs what `corrupt` hides.

    `dim` is the bottleneck's width, `stride` the frames in to one vector out. If it is not `trained`, it keeps the
    weights it begins with, whatever its other settings say: the control for what pretraining gave.

    `loss` is mse, l1, or bce: CMVN leaves targets without bounds, so for binary cross-entropy they are scaled to
    [0, 1], three standard deviations to each side, and what `decode` gives are logits. A denoising autoencoder
    (Vincent et al. 2010) has Gaussian `noise` of that standard deviation on its input, or the share `drop` of its
    input's cells set to zero, the mean; its target is clean. Only pretraining needs the submodule `decoder`.
    """

    monitor, group = "val_loss", "autoencoder"
    dim: int
    stride: int
    visible = 0.0

    def __init__(
        self, *, trained: bool, updates: int, loss: str = "mse", noise: float = 0.0, drop: float = 0.0, **training
    ) -> None:
        super().__init__(updates=updates if trained else 0, **training)
        if loss not in ERRORS:
            raise InputError(f"autoencoder.loss={loss}: expected {', '.join(ERRORS)}")
        if noise < 0 or not 0 <= drop < 1:
            raise InputError(f"autoencoder.noise={noise} drop={drop}: expected 0 or more, and a share below 1")
        self.kind, self.noise, self.drop = loss, noise, drop

    def parameter_layers(self) -> list[list[nn.Parameter]]:
        """The parameters that a recognizer carries along, layer by layer from the input on: all in one."""
        return [[p for name, p in self.named_parameters() if not name.startswith("decoder.")]]

    def check_features(self, extractor: dict) -> None:
        """Raise InputError for features, by the settings of what extracts them, that it cannot read: any can be."""

    def initialize(self, batches: Batcher) -> None:
        """What is computed from all of the unlabeled audio before the first update: nothing."""

    @abstractmethod
    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, T, D] frames to the bottleneck [B, ceil(T / stride), dim] and its lengths."""

    @abstractmethod
    def decode(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The bottleneck back to [B, T, D]; T is a multiple of the stride."""

    def information(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor | None:
        """Mean nats that each dimension of the bottleneck is given, [dim], where training bounds them."""

    def target(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """What is to be reconstructed of clean features, [B, T, W]: these themselves."""
        return features

    def reconstruct(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """What `decode` means, on the scale of the target [B, T, W]."""
        output = self.decode(codes, lengths)
        return RANGE * (2 * output.sigmoid() - 1) if self.kind == "bce" else output

    def noisy(self, x: torch.Tensor) -> torch.Tensor:
        """`x` of any shape with noise on it, and cells dropped."""
        if self.noise:
            x = x + self.noise * self.draw(torch.randn, x.shape, x.device)
        return x * (self.draw(torch.rand, x.shape, x.device) >= self.drop) if self.drop else x

    def corrupt(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The encoder's input [B, T, D], and true in each cell [B, T, D] that is to be reconstructed."""
        return features, torch.ones_like(features, dtype=torch.bool)

    def code(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the decoder is given in training, its lengths, and what is added to the loss for it: nothing."""
        return *self.encode(features, lengths), features.new_zeros(())

    def beside(self, codes: torch.Tensor, cells: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """What else is asked of the bottleneck where `cells` of the `clean` features are hidden, as a cost: nothing."""
        return clean.new_zeros(())

    def scale(self, features: torch.Tensor) -> torch.Tensor:
        """To [0, 1] for binary cross-entropy."""
        return ((features + RANGE) / (2 * RANGE)).clamp(0, 1) if self.kind == "bce" else features

    def error(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The reconstruction error of each cell, [B, T, W]."""
        return ERRORS[self.kind](output, self.scale(target), reduction="none")

    def loss(self, batch: Batch) -> torch.Tensor:
        """The mean error over the cells to be reconstructed, padding left out; of clean features, if it was corrupted.

        The corruption may be the batch's own, as noise is, or `noisy`'s and `corrupt`'s. Errors of other cells weigh
        `visible`.
        """
        inside = padding_mask(batch.lengths, batch.features.shape[1])[:, :, None]
        corrupted, cells = self.corrupt(self.noisy(batch.features) * inside)
        codes, lengths, cost = self.code(corrupted, batch.lengths)
        output = self.decode(codes, lengths)[:, : batch.features.shape[1]]
        cost = cost + self.beside(codes, cells & inside, batch.clean)
        errors = self.error(output, self.target(batch.clean, batch.lengths))
        weights = (torch.where(cells, 1.0, self.visible) * inside).expand_as(errors)
        return self.total((errors * weights).sum()) / self.total(weights.sum()).clamp(min=1) + cost

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
            batch_size=int(self.total(batch.lengths.sum())),
        )
