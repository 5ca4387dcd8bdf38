"""The textbook autoencoder on a window of frames: h = f(W1 x + b1), x' = g(W2 h + b2), deeper if `widths` says so."""

import torch
from torch import nn

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.subsampling import splice
from local.errors import InputError

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
RANGE = 3.0  # standard deviations that binary cross-entropy maps to [0, 1]


class Dense(Autoencoder):
    """Encodes each frame from the `2 * context + 1` around it, and reconstructs the whole window.

    With `loss=mse` the output is linear, for CMVN leaves targets without bounds; with `loss=bce` it is a sigmoid,
    and the inputs are scaled to [0, 1], three standard deviations to each side.
    """

    stride = 1

    def __init__(
        self,
        *,
        input_dim: int,
        context: int,
        widths: list[int],
        bottleneck: int,
        activation: str,
        loss: str,
        **training,
    ) -> None:
        super().__init__(**training)
        if activation not in ACTIVATIONS or loss not in ("mse", "bce"):
            raise InputError(
                f"autoencoder.activation={activation} loss={loss}: expected {', '.join(ACTIVATIONS)} and mse or bce"
            )
        self.context, self.dim, self.kind = context, bottleneck, loss
        sizes = [(2 * context + 1) * input_dim, *widths, bottleneck]
        nonlinear = ACTIVATIONS[activation]
        self.encoder, self.decoder = nn.Sequential(), nn.Sequential()
        for size, smaller in zip(sizes, sizes[1:], strict=False):
            self.encoder.extend([nn.Linear(size, smaller), nonlinear()])
        for size, larger in zip(sizes[:0:-1], sizes[-2::-1], strict=True):
            self.decoder.extend([nn.Linear(size, larger), nonlinear()])
        del self.decoder[-1]

    def scale(self, features: torch.Tensor) -> torch.Tensor:
        """To [0, 1] for binary cross-entropy."""
        return ((features + RANGE) / (2 * RANGE)).clamp(0, 1) if self.kind == "bce" else features

    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base."""
        return self.encoder(self.scale(splice(features, self.context))), lengths

    def decode(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The windows [B, T, (2 * context + 1) * D]; logits for binary cross-entropy."""
        return self.decoder(codes)

    def error(self, output: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Of each frame, the mean over its window, [B, T, 1]."""
        target = self.scale(splice(features, self.context))
        if self.kind == "bce":
            cells = nn.functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        else:
            cells = (output - target) ** 2
        return cells.mean(2, keepdim=True)

    def corrupt(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Nothing is hidden; every frame counts once."""
        return features, torch.ones_like(features[:, :, :1], dtype=torch.bool)
