"""An autoencoder of the waveform itself: strided convolutions over samples, transposed on the way back.

Its layers are like those of wav2vec (Schneider et al. 2019, arXiv 1904.05862), here trained to reconstruct.
"""

import math

import torch
from torch import nn

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.batch import moments, padding_mask
from local.errors import InputError
from local.extractors import Fbank

MELS = 80


class Waveform(Autoencoder):
    """Reads frames of D samples that do not overlap, as `features=waveform` gives them, end to end.

    A convolution for each of `strides`, whose product is the samples to one bottleneck vector; `width` channels.
    Samples behind an utterance's end are zeroed before each, so padding does not change a result. Reconstructed are
    the samples, or with `target=logmel` log-mel filterbanks of them, normalized by utterance, one for each frame.
    """

    def __init__(
        self, *, input_dim: int, width: int, strides: list[int], bottleneck: int, target: str = "samples", **training
    ) -> None:
        super().__init__(**training)
        if target not in ("samples", "logmel"):
            raise InputError(f"autoencoder.target={target}: expected samples or logmel")
        samples = math.prod(strides)
        if min(strides) < 1 or samples % input_dim:
            raise InputError(
                f"autoencoder.strides={strides}: {samples} samples to a vector, expected a multiple of the "
                f"{input_dim} of a frame; change them, or use features=waveform"
            )
        self.input_dim, self.stride, self.dim, self.strides = input_dim, samples // input_dim, bottleneck, strides
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for i, stride in enumerate(strides):
            self.convolutions.append(nn.Conv1d(width if i else 1, width, 2 * stride - 1, stride, stride - 1))
            self.norms.append(nn.LayerNorm(width))
        self.to_bottleneck = nn.Linear(width, bottleneck)
        self.fbank = None
        if target == "logmel":  # a frame of samples is 10 ms
            self.fbank = Fbank(n_mels=MELS, sample_rate=100 * input_dim, win_length=25, hop_length=10)
            self.decoder = nn.Sequential(
                nn.Linear(bottleneck, 4 * bottleneck), nn.GELU(), nn.Linear(4 * bottleneck, self.stride * MELS)
            )
            return
        self.decoder = nn.Sequential(nn.Conv1d(bottleneck, width, 1))
        for i, s in reversed([*enumerate(strides)]):  # each makes s samples of one
            back = nn.ConvTranspose1d(width, width if i else 1, 2 * s - 1, s, s // 2, output_padding=1 - s % 2)
            self.decoder.extend([nn.GELU(), back])

    def check_features(self, extractor: dict) -> None:
        """See the base: samples end to end, 10 ms a frame."""
        windows = extractor["win_length"], extractor["hop_length"]
        if not extractor["_target_"].endswith(".Waveform") or windows != (10, 10):
            raise InputError(
                f"autoencoder={self.name} reads samples, 10 ms of them a frame, but the features are "
                f"{extractor['_target_'].rpartition('.')[2]}s of {windows[0]} ms each {windows[1]} ms; use "
                "features=waveform as it is"
            )

    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base."""
        x, samples = features.flatten(1)[:, None], lengths * self.input_dim
        for stride, convolution, norm in zip(self.strides, self.convolutions, self.norms, strict=True):
            x = convolution(x * padding_mask(samples, x.shape[2])[:, None])
            x = nn.functional.gelu(norm(x.transpose(1, 2))).transpose(1, 2)
            samples = -(-samples // stride)
        return self.to_bottleneck(x.transpose(1, 2)), samples

    def decode(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """See the base."""
        if self.fbank:
            return self.decoder(codes).unflatten(2, (self.stride, MELS)).flatten(1, 2)
        x = self.decoder[0](codes.transpose(1, 2))
        for i, stride in enumerate(reversed(self.strides)):
            x = x * padding_mask(lengths, x.shape[2])[:, None]
            x, lengths = self.decoder[2 * i + 1 : 2 * i + 3](x), lengths * stride
        return x.unflatten(2, (-1, self.input_dim))[:, 0]

    @torch.no_grad()
    def target(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The samples, or the filterbanks [B, T, 80] around the middle of each frame."""
        if not self.fbank:
            return features
        found = self.fbank.frames(features.flatten(1)[:, self.input_dim // 2 :].float(), lengths)
        inside = padding_mask(lengths, found.shape[1])[:, :, None]
        mean, deviation = moments(found, inside)
        return (found - mean) / deviation * inside

    def corrupt(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Nothing is hidden; every frame counts once."""
        return features, torch.ones_like(features[:, :, :1], dtype=torch.bool)
