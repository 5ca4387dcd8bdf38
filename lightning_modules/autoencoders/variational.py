"""A variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114) on the layers of `masked`."""

import math

import torch
from torch import nn

from lightning_modules.autoencoders.masked import Masked
from lightning_modules.batch import padding_mask


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Of each Gaussian from the standard one, the Kullback-Leibler divergence in nats, in the shape of both."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)


class Variational(Masked):
    """The bottleneck is a diagonal Gaussian; its mean is the representation, a sample of it is decoded.

    `kl` weighs the divergence of a bottleneck vector, by reconstructed cell, beside the mean error of a cell: with
    `loss=mse`, 2 gives the evidence lower bound of a decoder with variance 1, and beta of Higgins et al. (2017) is
    half of it. It rises linearly over the share `kl_warmup` of the updates (Bowman et al. 2016); validation always
    has all of it. A dimension whose divergence is below `free_bits` pays for that many (Kingma et al. 2016).
    """

    def __init__(self, *, bottleneck: int, kl: float, kl_warmup: float, free_bits: float, **masked) -> None:
        super().__init__(bottleneck=bottleneck, **masked)
        self.kl, self.rise, self.free_bits = kl, max(1, round(kl_warmup * self.updates)), free_bits
        self.to_log_variance = nn.Linear(self.encoder.dim, bottleneck)

    def posterior(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Mean and logarithm of the variance [B, ceil(T / stride), dim], lengths, and mean divergences [dim]."""
        hidden, lengths = self.hidden(features, lengths)
        mean, log_variance = self.to_bottleneck(hidden).float(), self.to_log_variance(hidden).float()
        inside = padding_mask(lengths, mean.shape[1])[:, :, None]
        nats = self.total((divergence(mean, log_variance) * inside).sum((0, 1))) / self.total(inside.sum())
        return mean, log_variance, lengths, nats

    def information(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The divergences."""
        return self.posterior(features, lengths)[3]

    def code(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A sample, and its cost."""
        mean, log_variance, lengths, nats = self.posterior(features, lengths)
        codes = mean + (log_variance / 2).exp() * self.draw(torch.randn, mean.shape, mean.device)
        if not self.training:
            self.log("val_kl", nats.sum(), on_epoch=True, logger=False, batch_size=int(self.total(lengths.sum())))
        weight = self.kl * (min(1.0, (self.global_step + 1) / self.rise) if self.training else 1.0)
        paid = nats.clamp(min=self.free_bits * math.log(2)).sum()
        return codes, lengths, weight * paid / (self.stride * features.shape[2])
