"""A vector-quantized autoencoder (van den Oord et al. 2017, arXiv 1711.00937) on the layers of `masked`.

The codebook follows its vectors by moving averages (their appendix A.1); codes that no vector comes to begin again
at one of the batch (Dhariwal et al. 2020, arXiv 2005.00341). The vectors of an untrained encoder are all but one, and
move faster than a codebook follows, so it begins later (Lancucki et al. 2020, arXiv 2005.08520).
"""

import torch
from torch import nn

from lightning_modules.autoencoders.masked import Masked
from lightning_modules.batch import Batcher, padding_mask, seed_of
from local.errors import InputError

COLLAPSED = 1.5  # perplexity: fewer than two codes are in use


class Quantized(Masked):
    """The bottleneck is the nearest of `codes` vectors; gradients pass it as if it were not there.

    Training goes without the codebook for the share `start` of the updates; validation never does. `commitment` weighs
    the squared distance of a vector to its code. `decay` is that of the moving averages; a code with less than the
    share `dead` of an even part of the vectors begins again. Codebook and averages are buffers, so they lie in the
    checkpoint, and what is drawn follows from (seed, step). Fine-tuning leaves the codebook as it is.
    """

    def __init__(
        self,
        *,
        bottleneck: int,
        codes: int,
        start: float,
        commitment: float,
        decay: float,
        dead: float,
        **masked,
    ) -> None:
        super().__init__(bottleneck=bottleneck, **masked)
        if codes < 2 or not (0 <= start < 1 and 0 <= decay < 1 and 0 < dead < 1):
            raise InputError(
                f"autoencoder.codes={codes} start={start} decay={decay} dead={dead}: expected two codes or more, and "
                "shares below 1"
            )
        self.commitment, self.decay, self.dead = commitment, decay, dead
        self.start = round(start * self.updates)
        self.register_buffer("codebook", torch.randn(codes, bottleneck))
        self.register_buffer("counts", torch.zeros(codes))  # vectors of a batch that came to each code, averaged
        self.used: list = []

    @torch.no_grad()
    def initialize(self, batches: Batcher) -> None:
        """Put all codes at vectors of a batch: an autoencoder that is not trained has no others; see `masked` too."""
        super().initialize(batches)
        batch = batches.at(0)
        torch.manual_seed(seed_of(self.seed, "codebook"))
        vectors, lengths = super().encode(*(one.to(self.codebook.device) for one in (batch.features, batch.lengths)))
        self.restart(vectors, padding_mask(lengths, vectors.shape[1]))
        self.counts.zero_()

    def nearest(self, vectors: torch.Tensor) -> torch.Tensor:
        """The index of the code nearest to each vector, [B, T, dim] to [B, T]."""
        book = self.codebook.double()  # in which a product is exact enough, and no autocast touches it
        return (book.square().sum(1) - 2 * vectors.detach().double() @ book.T).argmin(2)

    def quantize(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The codes of vectors [B, T, dim], with the gradient of the vectors, and their indices [B, T]."""
        index = self.nearest(vectors)
        return vectors + (nn.functional.embedding(index, self.codebook) - vectors).detach(), index

    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base."""
        vectors, lengths = super().encode(features, lengths)
        return self.quantize(vectors)[0], lengths

    def code(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The codes, and the cost of their distance."""
        vectors, lengths = super().encode(features, lengths)
        vectors = vectors.float()
        if self.training and self.global_step < self.start:
            return vectors, lengths, vectors.new_zeros(())
        inside = padding_mask(lengths, vectors.shape[1])
        if self.training:
            self.restart(vectors.detach(), inside)
        codes, index = self.quantize(vectors)
        distance = ((vectors - codes.detach()) ** 2).mean(2)
        one_hot = nn.functional.one_hot(index, len(self.codebook)) * inside[:, :, None]
        if self.training:
            self.follow(vectors.detach(), one_hot.float())
        else:
            self.used.append(self.total(one_hot.sum((0, 1))))
        return codes, lengths, self.commitment * self.total((distance * inside).sum()) / self.total(inside.sum())

    @torch.no_grad()
    def restart(self, vectors: torch.Tensor, inside: torch.Tensor) -> None:
        """Put dead codes, at first all, at random vectors of the batch, where they are soon dead again if unused."""
        vectors, inside = self.gathered(vectors), self.gathered(inside.float())
        drawn = torch.multinomial(inside.flatten(), len(self.codebook), replacement=True, generator=self.generator)
        even = self.counts.mean()
        dead = self.counts <= self.dead * even
        fresh = vectors.flatten(0, 1)[drawn]
        self.codebook.copy_(torch.where(dead[:, None], fresh, self.codebook))
        self.counts.copy_(torch.where(dead, (2 * self.dead * even).clamp(min=1e-3), self.counts))

    @torch.no_grad()
    def follow(self, vectors: torch.Tensor, one_hot: torch.Tensor) -> None:
        """Move the averages towards a batch, `one_hot` [B, T, codes] being zero in its padding, and the codes after."""
        with torch.autocast(vectors.device.type, enabled=False):
            sums = self.total(torch.einsum("btk,btd->kd", one_hot, vectors))
        sums = torch.lerp(self.codebook * self.counts[:, None], sums, 1 - self.decay)
        self.counts.lerp_(self.total(one_hot.sum((0, 1))), 1 - self.decay)
        self.codebook.copy_(sums / self.counts.clamp(min=1e-6)[:, None])

    def on_validation_epoch_end(self) -> None:
        """The perplexity of the codes on dev; raises InputError if one has it all."""
        shares = torch.stack(self.used).sum(0).float()
        shares = shares / shares.sum()
        self.used.clear()
        perplexity = float(torch.special.entr(shares).sum().exp())
        self.log("val_perplexity", perplexity, logger=False)
        if perplexity < COLLAPSED and self.global_step > self.start:
            raise InputError(
                f"{self.name}: the codebook has collapsed at step {self.global_step}: perplexity {perplexity:.2f} of "
                f"{len(shares)} codes on dev; lower autoencoder.learning_rate or raise autoencoder.dead"
            )
