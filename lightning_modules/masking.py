"""Random spans of frames and bands of filters, drawn for a whole batch at once."""

import torch


def spans(batch: int, frames: int, span: int, share: float, device: torch.device) -> torch.Tensor:
    """[B, T], true in spans of `span` frames that may overlap and together cover about `share` of the frames.

    Each frame begins a span with such a probability that a frame far from the edges is covered with
    probability `share`.
    """
    if share == 0:
        return torch.zeros(batch, frames, dtype=torch.bool, device=device)
    rate = 1 - (1 - share) ** (1 / span)
    starts = (torch.rand(batch, frames + span - 1, device=device) < rate).float()
    return torch.nn.functional.max_pool1d(starts[:, None], span, stride=1)[:, 0] > 0


def band(batch: int, width: int, widest: int, device: torch.device) -> torch.Tensor:
    """[B, D], true in one band of 0 to `widest` neighboring dimensions."""
    size = torch.randint(0, widest + 1, (batch, 1), device=device)
    low = (torch.rand(batch, 1, device=device) * (width - size + 1)).long()
    place = torch.arange(width, device=device)
    return (place >= low) & (place < low + size)
