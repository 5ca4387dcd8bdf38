"""Random spans of frames and bands of filters, drawn for a whole batch at once."""

from collections.abc import Callable
from functools import partial

import torch


def spans(draw: Callable, batch: int, frames: int, span: int, share: float, device: torch.device) -> torch.Tensor:
    """[B, T], true in spans of `span` frames that may overlap and together cover about `share` of the frames.

    Each frame begins a span with such a probability that a frame far from the edges is covered with
    probability `share`. Numbers come from `draw(kind, size, device)`, a training's.
    """
    if share == 0:
        return torch.zeros(batch, frames, dtype=torch.bool, device=device)
    rate = 1 - (1 - share) ** (1 / span)
    starts = (draw(torch.rand, (batch, frames + span - 1), device) < rate).float()
    return torch.nn.functional.max_pool1d(starts[:, None], span, stride=1)[:, 0] > 0


def band(draw: Callable, batch: int, width: int, widest: int, device: torch.device) -> torch.Tensor:
    """[B, D], true in one band of 0 to `widest` neighboring dimensions."""
    size = draw(partial(torch.randint, 0, widest + 1), (batch, 1), device)
    low = (draw(torch.rand, (batch, 1), device) * (width - size + 1)).long()
    place = torch.arange(width, device=device)
    return (place >= low) & (place < low + size)
