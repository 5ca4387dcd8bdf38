"""Fewer frames a second: windows of neighbors, or strided convolutions over time."""

import torch
from torch import nn

from lightning_modules.batch import padding_mask
from local.errors import InputError


def splice(x: torch.Tensor, context: int, stride: int = 1) -> torch.Tensor:
    """[B, T, D] to [B, ceil(T / stride), (2 * context + 1) * D]: each `stride`-th frame among its neighbors.

    There are zeros before the first frame and behind the last.
    """
    padded = nn.functional.pad(x, (0, 0, context, context))
    return padded.unfold(1, 2 * context + 1, stride).transpose(2, 3).flatten(2)


def halvings(stride: int) -> int:
    """How often a stride of 2 makes this one; raises InputError if it never does."""
    if stride < 1 or stride & (stride - 1):
        raise InputError(f"stride {stride}: expected a power of two, in the autoencoder and the recognizer")
    return stride.bit_length() - 1


class Subsampling(nn.Module):
    """[B, T, input_dim] to [B, ceil(T / stride), dim]: a convolution for each factor of two, and a projection.

    Frames behind an utterance's end are zeroed before each convolution, so padding does not change a result.
    """

    def __init__(self, input_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        sizes = [input_dim] + [dim] * halvings(stride)
        self.convolutions = nn.ModuleList(nn.Conv1d(size, dim, 5, stride=2, padding=2) for size in sizes[:-1])
        self.project = nn.Linear(sizes[-1], dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The shorter sequence and its lengths."""
        for convolution in self.convolutions:
            x = x * padding_mask(lengths, x.shape[1])[:, :, None]
            x = nn.functional.gelu(convolution(x.transpose(1, 2)).transpose(1, 2))
            lengths = (lengths + 1) // 2
        return self.norm(self.project(x)), lengths
