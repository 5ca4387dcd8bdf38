"""Autoregressive predictive coding (Chung et al. 2019, arXiv 1904.03240): the nearest rival of reconstruction."""

import torch
from torch import nn

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.batch import Batcher
from local.errors import InputError


class Predictive(Autoencoder):
    """A unidirectional LSTM predicts the frame `shift` ahead; its top layer is the representation.

    A layer is added to what it reads, from the second on, as in the paper. Nothing after a frame changes its vector.
    """

    stride = 1

    def __init__(self, *, input_dim: int, width: int, layers: int, shift: int, **training) -> None:
        super().__init__(**training)
        self.dim, self.shift = width, shift
        self.layers = nn.ModuleList(nn.LSTM(width if i else input_dim, width, batch_first=True) for i in range(layers))
        self.decoder = nn.Linear(width, input_dim)

    def initialize(self, batches: Batcher) -> None:
        """Raises InputError if no utterance is longer than the prediction is ahead."""
        if self.shift >= (longest := int(batches.lengths.max())):
            raise InputError(
                f"autoencoder.shift={self.shift}: expected fewer frames than the longest utterance has ({longest}); "
                "lower it, or raise autoencoder.crop_seconds if that cuts them"
            )

    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base."""
        x = self.layers[0](features)[0]
        for layer in self.layers[1:]:
            x = x + layer(x)[0]
        return x, lengths

    def decode(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The prediction of each frame, [B, T, D], from the vector `shift` before it; zero where there is none."""
        return nn.functional.pad(self.decoder(codes), (0, 0, self.shift, 0))[:, : codes.shape[1]]

    def corrupt(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first `shift` frames are not predicted."""
        cells = torch.ones_like(features, dtype=torch.bool)
        cells[:, : self.shift] = False
        return features, cells
