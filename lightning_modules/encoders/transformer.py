"""Transformer layers (Vaswani et al. 2017), SpeechBrain's, normalized before each block."""

import torch
from speechbrain.lobes.models.transformer.Transformer import TransformerEncoder
from speechbrain.nnet.attention import RelPosEncXL
from torch import nn

from lightning_modules.batch import padding_mask
from local.errors import InputError


class Transformer(nn.Module):
    """[B, T, D] to [B, T, width].

    Positions are relative (Dai et al. 2019, arXiv 1901.02860), so an excerpt's place in its utterance says nothing.
    SpeechBrain's rotary ones are faster by a fifth, but fail in a training after an inference of longer utterances.
    """

    def __init__(self, input_dim: int, width: int, layers: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        if width % (2 * heads):
            raise InputError(f"encoder.width={width} heads={heads}: expected a width divisible by twice the heads")
        self.dim = width
        self.project = nn.Linear(input_dim, width)
        self.positions = RelPosEncXL(width)
        self.blocks = self.stack(width, layers, heads, feedforward, dropout)

    def stack(self, width: int, layers: int, heads: int, feedforward: int, dropout: float) -> nn.Module:
        """SpeechBrain's encoder."""
        return TransformerEncoder(
            layers, heads, feedforward, d_model=width, dropout=dropout, activation=nn.GELU, normalize_before=True,
            attention_type="RelPosMHAXL",
        )  # fmt: skip

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Encode; what lies behind `lengths` [B] is undefined."""
        behind = ~padding_mask(lengths, x.shape[1])
        return self.blocks(self.project(x), src_key_padding_mask=behind, pos_embs=self.positions(x))[0]
