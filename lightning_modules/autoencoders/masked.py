"""A masked sequence autoencoder: reconstructs hidden spans of time and bands of frequency from their context.

After masked reconstruction for bidirectional recurrent CTC encoders (Wang, Tang and Livescu 2020,
arXiv 2001.10603), with a bottleneck between encoder and decoder.
"""

import math
import re

import torch
from torch import nn

from lightning_modules import masking
from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.batch import Batcher
from lightning_modules.checkpoint import build
from lightning_modules.subsampling import Subsampling
from local.errors import InputError


class Masked(Autoencoder):
    """Convolutional subsampling, an encoder, the bottleneck, and a decoder of two linear layers.

    Masks are laid before the subsampling, whose windows overlap. A masked cell holds a learned token: after CMVN
    zero is the average frame, and would look like speech. Only masked cells are to be reconstructed, unless errors of
    the others weigh `visible` as much (the emphasis of Vincent et al. 2010); with `masked=0 band=0` all are.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        encoder: dict,
        width: int,
        stride: int,
        bottleneck: int,
        span: int,
        masked: float,
        band: int,
        visible: float = 0.0,
        decoder_width: int | None = None,
        **training,
    ) -> None:
        super().__init__(**training)
        if not (span >= 1 and 0 <= masked < 1 and 0 <= band < input_dim):
            raise InputError(
                f"autoencoder.span={span} masked={masked} band={band}: expected a frame or more, a share below 1, and "
                f"fewer filters than the features' {input_dim}"
            )
        self.visible = visible
        self.stride, self.dim, self.span, self.masked, self.band = stride, bottleneck, span, masked, band
        self.token = nn.Parameter(0.1 * torch.randn(input_dim))
        self.subsampling = Subsampling(input_dim, width, stride)
        self.encoder = build(encoder, input_dim=width)
        self.to_bottleneck = nn.Linear(self.encoder.dim, bottleneck)
        inner = decoder_width or 4 * bottleneck
        self.decoder = nn.Sequential(nn.Linear(bottleneck, inner), nn.GELU(), nn.Linear(inner, stride * input_dim))

    def parameter_layers(self) -> list[list[nn.Parameter]]:
        """What lies before the encoder, each of its layers, and what lies behind them."""
        found: dict[int, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            number = re.search(r"^encoder\..*?(\d+)\.", name)
            first = name == "token" or name.startswith(("subsampling.", "encoder.project."))
            place = 0 if first else 1 + int(number[1]) if number else math.inf  # a layer's is its name's first number
            if not name.startswith("decoder."):
                found.setdefault(place, []).append(parameter)
        return [found[place] for place in sorted(found)]

    def initialize(self, batches: Batcher) -> None:
        """Raises InputError if no utterance is as long as one masked span."""
        if self.masked and self.span > (longest := int(batches.lengths.max())):
            raise InputError(
                f"autoencoder.span={self.span}: expected a mask shorter than the utterances, of which the longest has "
                f"{longest} frames; lower it, or raise autoencoder.crop_seconds if that cuts them"
            )

    def corrupt(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the token into random spans and one random band of each utterance."""
        if not (self.masked or self.band):
            return super().corrupt(features)
        batch, frames, width = features.shape
        time = masking.spans(self.draw, batch, frames, self.span, self.masked, features.device)
        frequency = masking.band(self.draw, batch, width, self.band, features.device)
        cells = time[:, :, None] | frequency[:, None, :]
        return torch.where(cells, self.token.to(features.dtype), features), cells

    def hidden(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the bottleneck is made of, [B, ceil(T / stride), W], and its lengths."""
        hidden, lengths = self.subsampling(features, lengths)
        return self.encoder(hidden, lengths), lengths

    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base."""
        hidden, lengths = self.hidden(features, lengths)
        return self.to_bottleneck(hidden), lengths

    def decode(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """See the base."""
        output = self.decoder(codes)
        return output.reshape(len(codes), codes.shape[1] * self.stride, -1)
