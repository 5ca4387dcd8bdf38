"""A convolutional autoencoder over time and frequency: strided convolutions, transposed on the way back.

After the stacked convolutional autoencoders of Masci et al. (2011).
"""

import torch
from torch import nn

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.batch import padding_mask
from lightning_modules.subsampling import halvings


class Convolutional(Autoencoder):
    """A convolution of stride 2, in time and frequency, for each factor of two of `stride`; `width` channels.

    Frames behind an utterance's end are zeroed before each, so padding does not change a result.
    """

    def __init__(self, *, input_dim: int, width: int, stride: int, bottleneck: int, **training) -> None:
        super().__init__(**training)
        self.input_dim, self.width, self.stride, self.dim = input_dim, width, stride, bottleneck
        count = halvings(stride)
        self.bands = -(-input_dim // stride)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width if i else 1, width, 3, stride=2, padding=1) for i in range(count)
        )
        self.channels = width if count else 1
        self.to_bottleneck = nn.Linear(self.channels * self.bands, bottleneck)
        back = [(nn.GELU(), nn.ConvTranspose2d(width, 1 if i == count - 1 else width, 4, 2, 1)) for i in range(count)]
        self.decoder = nn.ModuleDict(
            {
                "project": nn.Linear(bottleneck, self.channels * self.bands),
                "convolutions": nn.Sequential(*(layer for pair in back for layer in pair)),
            }
        )

    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base."""
        x = features[:, None]
        for convolution in self.convolutions:
            x = nn.functional.gelu(convolution(x * padding_mask(lengths, x.shape[2])[:, None, :, None]))
            lengths = (lengths + 1) // 2
        return self.to_bottleneck(x.transpose(1, 2).flatten(2)), lengths

    def decode(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """See the base."""
        x = self.decoder["project"](codes).unflatten(2, (self.channels, self.bands)).transpose(1, 2)
        layers = self.decoder["convolutions"]
        for i in range(0, len(layers), 2):
            x = x * padding_mask(lengths, x.shape[2])[:, None, :, None]
            x, lengths = layers[i : i + 2](x), 2 * lengths
        return x[:, 0, :, : self.input_dim]
