"""How well an autoencoder reconstructs held-out features, and what that looks like.

B batch, T frames, D width.
"""

from dataclasses import replace

import torch

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.batch import Batch, Batcher, padding_mask, seed_of
from local.frames import Frames

BATCH = 200  # seconds
EXCERPT = 5  # seconds of an utterance in a picture


def interpolate(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """`x` [B, T, D] with its cells that are not `known` interpolated linearly over time, and zero where none is known.

    Before the first that is known and behind the last, these go on.
    """
    frames = x.shape[1]
    time = torch.arange(frames, device=x.device)[None, :, None].expand_as(x)
    before = torch.where(known, time, -1).cummax(1).values
    after = torch.where(known, time, frames).flip(1).cummin(1).values.flip(1)
    left, right = (x.gather(1, place.clamp(0, frames - 1)) for place in (before, after))
    left, right = torch.where(before < 0, right, left), torch.where(after == frames, left, right)
    share = (time - before) / (after - before).clamp(min=1)
    return torch.where(known, x, (left + (right - left) * share) * known.any(1, keepdim=True))


def fill(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """`x` [B, T, D] interpolated over time; over frequency, where a band is hidden throughout."""
    x, known = interpolate(x, known), known.any(1, keepdim=True).expand_as(known)
    return interpolate(x.transpose(1, 2), known.transpose(1, 2)).transpose(1, 2)


@torch.inference_mode()
def reconstruct(module: Autoencoder, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The encoder's input as in training [B, T, D], its reconstruction [B, T, W], and where the input was hidden."""
    torch.manual_seed(seed_of("reconstruction"))  # the same masks for every checkpoint
    frames = batch.features.shape[1]
    inside = padding_mask(batch.lengths, frames)[:, :, None]
    noisy = module.noisy(batch.features) * inside
    corrupted, _ = module.corrupt(noisy)
    output = module.reconstruct(*module.encode(corrupted, batch.lengths))[:, :frames]
    return corrupted, output, (corrupted != noisy) & inside


@torch.inference_mode()
def errors(module: Autoencoder, data: Frames) -> dict:
    """Squared errors of the reconstruction as shares of the variance, so that 1 is what predicting the mean gives.

    `reconstruction_error` is that of all cells; where some are hidden, `masked_error` is that of these alone, and
    `interpolation_error` what interpolation across the gap would have there. Of a variational bottleneck also `kl`, in
    nats a vector, and `kl_by_dimension`, the largest first.
    """
    batches = Batcher(data, round(BATCH / data.frame_shift), seed=0)
    mean = sum(module.target(batch.features, batch.lengths).sum((0, 1)) for batch in batches.all()) / data.lengths.sum()
    total, nats, vectors = torch.zeros(5, dtype=torch.float64, device=mean.device), 0.0, 0
    for batch in batches.all():
        corrupted, output, hidden = reconstruct(module, batch)
        target = module.target(batch.features, batch.lengths)
        inside = padding_mask(batch.lengths, batch.features.shape[1])[:, :, None]
        if hidden.shape != target.shape:
            hidden = torch.zeros_like(target, dtype=torch.bool)  # of samples, none are
        known = inside & ~hidden
        clean = target - mean
        filled = fill((corrupted - mean) * known, known) if hidden.any() else clean
        squares = clean.square() * inside
        wrong = (output - target).square() * inside
        parts = squares, wrong, squares * hidden, wrong * hidden, (filled - clean).square() * hidden
        total += torch.stack([part.sum(dtype=torch.float64) for part in parts])
        if (given := module.information(corrupted, batch.lengths)) is not None:
            count = int((-(-batch.lengths // module.stride)).sum())
            nats, vectors = nats + count * given.double(), vectors + count
    squares, wrong, hidden_squares, hidden_wrong, filled_wrong = total.tolist()
    found = {"reconstruction_error": wrong / max(squares, 1e-12)}
    if hidden_squares:
        found["masked_error"] = hidden_wrong / hidden_squares
        found["interpolation_error"] = filled_wrong / hidden_squares
    if vectors:
        by_dimension = (nats / vectors).sort(descending=True).values
        found |= {"kl": by_dimension.sum().item(), "kl_by_dimension": by_dimension.tolist()}
    return found


def excerpts(module: Autoencoder, data: Frames) -> dict[str, list[torch.Tensor]]:
    """By utterance: the target of its beginning, that of the encoder's input, and the reconstruction, each [T, W]."""
    frames = round(EXCERPT / data.frame_shift)
    data = replace(data, lengths=data.lengths.clamp(max=frames))
    (batch,) = Batcher(data, len(data.ids) * frames, seed=0).all()
    corrupted, output, _ = reconstruct(module, batch)
    given = [module.target(each, batch.lengths).cpu() for each in (batch.features, corrupted)]
    panels = zip(*given, output.cpu(), strict=True)
    return {
        key: [each[:length].float() for each in three]
        for key, three, length in zip(batch.ids, panels, batch.lengths.tolist(), strict=True)
    }
