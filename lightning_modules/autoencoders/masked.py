"""A masked sequence autoencoder: reconstructs hidden spans of time and bands of frequency from their context.

After masked reconstruction for bidirectional recurrent CTC encoders (Wang, Tang and Livescu 2020,
arXiv 2001.10603), with a bottleneck between encoder and decoder.
"""

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
    zero is the average frame, and would look like speech. Only masked cells are to be reconstructed; with
    `masked=0 band=0` all are.
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
        **training,
    ) -> None:
        super().__init__(**training)
        if not (span >= 1 and 0 <= masked < 1 and 0 <= band < input_dim):
            raise InputError(
                f"autoencoder.span={span} masked={masked} band={band}: expected a frame or more, a share below 1, and "
                f"fewer filters than the features' {input_dim}"
            )
        self.stride, self.dim, self.span, self.masked, self.band = stride, bottleneck, span, masked, band
        self.token = nn.Parameter(0.1 * torch.randn(input_dim))
        self.subsampling = Subsampling(input_dim, width, stride)
        self.encoder = build(encoder, input_dim=width)
        self.to_bottleneck = nn.Linear(self.encoder.dim, bottleneck)
        self.decoder = nn.Sequential(
            nn.Linear(bottleneck, 4 * bottleneck), nn.GELU(), nn.Linear(4 * bottleneck, stride * input_dim)
        )

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
        time = masking.spans(batch, frames, self.span, self.masked, features.device)
        frequency = masking.band(batch, width, self.band, features.device)
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
