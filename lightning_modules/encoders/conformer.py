"""Conformer layers (Gulati et al. 2020), SpeechBrain's, with LayerNorm where the paper has BatchNorm."""

import torch
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder, ConvolutionModule
from torch import nn

from lightning_modules.encoders.convolutional import odd
from lightning_modules.encoders.transformer import Transformer


class Convolution(ConvolutionModule):
    """SpeechBrain's, but what lies behind an utterance's end is zeroed before the convolution, not only after it."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor, dynchunktrain_config: None = None) -> torch.Tensor:
        """[B, T, D] to the same, `mask` [B, T, 1] being true in the padding."""
        hidden = self.bottleneck(self.layer_norm(x).transpose(1, 2)).masked_fill(mask.transpose(1, 2), 0)
        return self.after_conv(self.conv(hidden).transpose(1, 2))


class Conformer(Transformer):
    """[B, T, D] to [B, T, width]; `kernel` is the width of the convolutions, an odd number of frames."""

    def __init__(self, kernel: int, **transformer) -> None:
        self.kernel = odd(kernel)
        super().__init__(**transformer)

    def stack(self, width: int, layers: int, heads: int, feedforward: int, dropout: float) -> nn.Module:
        """See the transformer."""
        blocks = ConformerEncoder(layers, width, feedforward, heads, kernel_size=self.kernel, dropout=dropout)
        for layer in blocks.layers:
            layer.convolution_module = Convolution(width, self.kernel, dropout=dropout)
        return blocks
