"""Bidirectional LSTM layers (Hochreiter and Schmidhuber 1997; Schuster and Paliwal 1997), each normalized.

Without the layer normalization (Ba et al. 2016), CTC stays on blanks for several times as many updates.
"""

import torch
from torch import nn
from torch.nn.functional import pad

from local.config import check_whole

# On a GPU, in half precision, cuDNN keeps the weights of a layer on the chip where its width is a multiple of 128 and
# the rows are one of 8; otherwise it launches kernels for each frame. How much that is: python -m tests.bench.lstm
EVEN = {"cuda": 8}


class LSTM(nn.Module):
    """[B, T, D] to [B, T, 2 * width].

    The backward direction reads each utterance reversed within its own length, so padding never reaches a valid
    frame, without the packed sequences that make a CPU three times slower.
    """

    def __init__(self, input_dim: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        check_whole("encoder.layers", layers)
        sizes = [input_dim] + [2 * width] * (layers - 1)
        self.forwards = nn.ModuleList(nn.LSTM(size, width, batch_first=True) for size in sizes)
        self.backwards = nn.ModuleList(nn.LSTM(size, width, batch_first=True) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(2 * width) for _ in sizes)
        self.dropout = nn.Dropout(dropout)
        self.dim = 2 * width

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Encode; what lies behind `lengths` [B] is undefined."""
        rows = x.shape[0]
        if more := -rows % EVEN.get(x.device.type, 1):
            x, lengths = pad(x, (0, 0, 0, 0, 0, more)), pad(lengths, (0, more))
        batch, frames = x.shape[:2]
        place = torch.arange(frames, device=x.device)
        mirror = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
        source = (mirror + frames * torch.arange(batch, device=x.device)[:, None]).flatten()

        def mirrored(y: torch.Tensor) -> torch.Tensor:
            """Whole frames are copied: over ten times as fast as a gather, which takes an index for each number."""
            return y.flatten(0, 1).index_select(0, source).view(batch, frames, -1)

        for ahead, back, norm in zip(self.forwards, self.backwards, self.norms, strict=True):
            x = torch.cat([ahead(x)[0], mirrored(back(mirrored(x))[0])], dim=2)
            x = self.dropout(norm(x))
        return x[:rows]
