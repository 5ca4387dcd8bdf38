"""Residual blocks of convolutions over time, each normalized, after Jasper (Li et al. 2019, arXiv 1904.03288).

A GPU does all frames of a layer at once, where an LSTM's wait for one another.
"""

import torch
from torch import nn

from lightning_modules.batch import padding_mask
from local.errors import InputError


def odd(kernel: int) -> int:
    """The width of a convolution; raises InputError unless a frame lies in its middle."""
    if kernel % 2 == 0:
        raise InputError(f"encoder.kernel={kernel}: expected an odd number, so that a frame lies in the middle")
    return kernel


class Convolutional(nn.Module):
    """[B, T, D] to [B, T, width]; `kernel` is the width of the convolutions, an odd number of frames."""

    def __init__(self, input_dim: int, width: int, layers: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.dim = width
        self.project = nn.Linear(input_dim, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, odd(kernel), padding="same") for _ in range(layers))
        self.linear = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.last = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Encode; what lies behind `lengths` [B] is undefined."""
        inside = padding_mask(lengths, x.shape[1])[:, :, None]
        x = self.project(x)
        for norm, convolution, linear in zip(self.norms, self.convolutions, self.linear, strict=True):
            hidden = convolution((norm(x) * inside).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(linear(nn.functional.gelu(hidden)))
        return self.last(x)
