"""The textbook autoencoder on a window of frames: h = f(W1 x + b1), x' = g(W2 h + b2), deeper if `widths` says so.

Stacked, and pretrained layer by layer: Hinton and Salakhutdinov 2006; on bottleneck features, Gehring et al. 2013.
"""

import torch
from torch import nn

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.batch import Batch, padding_mask
from lightning_modules.subsampling import splice
from local.errors import InputError

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


class Dense(Autoencoder):
    """Encodes each frame from the `2 * context + 1` around it, and reconstructs the whole window.

    With `loss=bce` the inputs are scaled to [0, 1] as the targets are, and the output is a sigmoid; else it is linear.

    `greedy` training gives each layer an equal part of the updates: it learns to reconstruct what the frozen layers
    below it give, with the noise of the base on that, while the layers above it do not change. The last part trains
    all layers together. Validation always measures the whole.
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
        greedy: bool = False,
        **training,
    ) -> None:
        super().__init__(**training)
        if activation not in ACTIVATIONS:
            raise InputError(f"autoencoder.activation={activation}: expected {', '.join(ACTIVATIONS)}")
        self.context, self.dim, self.greedy = context, bottleneck, greedy
        sizes = [(2 * context + 1) * input_dim, *widths, bottleneck]
        self.depth = len(sizes) - 1
        nonlinear = ACTIVATIONS[activation]
        self.encoder, self.decoder = nn.Sequential(), nn.Sequential()
        for size, smaller in zip(sizes, sizes[1:], strict=False):
            self.encoder.extend([nn.Linear(size, smaller), nonlinear()])
        for size, larger in zip(sizes[:0:-1], sizes[-2::-1], strict=True):
            self.decoder.extend([nn.Linear(size, larger), nonlinear()])
        del self.decoder[-1]

    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base."""
        return self.encoder(self.scale(splice(features, self.context))), lengths

    def decode(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The windows [B, T, (2 * context + 1) * D]; logits for binary cross-entropy."""
        return self.decoder(codes)

    def reconstruct(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The centers of the windows."""
        return super().reconstruct(codes, lengths).unflatten(2, (2 * self.context + 1, -1))[:, :, self.context]

    def error(self, output: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Of each frame, the mean over its window, [B, T, 1]."""
        return super().error(output, splice(features, self.context)).mean(2, keepdim=True)

    def corrupt(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Nothing is hidden; every frame counts once."""
        return features, torch.ones_like(features[:, :, :1], dtype=torch.bool)

    def layer_loss(self, batch: Batch, layer: int) -> torch.Tensor:
        """The mean error with which one layer, counted from the input, reconstructs what those below it give."""
        first = 2 * layer
        mirrored = 2 * (self.depth - 1 - layer)
        windows, clean = (splice(x, self.context) for x in (batch.features, batch.clean))
        with torch.no_grad():
            below, target = (self.encoder[:first](self.scale(x)) for x in (windows, clean))
        output = self.decoder[mirrored : mirrored + 2](self.encoder[first : first + 2](self.noisy(below)))
        errors = ((output - target) ** 2 if layer else super().error(output, clean)).mean(2)
        inside = padding_mask(batch.lengths, errors.shape[1])
        return self.total((errors * inside).sum()) / self.total(inside.sum())

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """One update's loss: of a layer, and in the last part of a greedy training, of the whole."""
        layer = self.global_step * (self.depth + 1) // max(1, self.updates)
        if not self.greedy or layer >= self.depth:
            return super().training_step(batch, batch_idx)
        return self.finite(self.layer_loss(batch, layer), batch)
