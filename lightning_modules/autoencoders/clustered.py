"""A masked autoencoder that also names the cluster of what is hidden (HuBERT, Hsu et al. 2021, arXiv 2106.07447).

The clusters are those of log-mel frames, as in MelHuBERT (Lin et al. 2022, arXiv 2211.09944).
"""

import torch
from scipy.cluster.vq import kmeans2
from torch import nn

from lightning_modules.autoencoders.masked import Masked
from lightning_modules.batch import Batcher, padding_mask, seed_of
from local.errors import InputError

SAMPLED = 20_000  # vectors that the clusters are fitted to
ITERATIONS = 15


class Clustered(Masked):
    """To the error of the reconstruction comes `weight` times a cross-entropy, in nats by hidden vector.

    A vector stands for `stride` frames and is hidden where all of them are masked; its label is the nearest of
    `clusters` means, by k-means, of such groups of clean frames.
    """

    def __init__(self, *, input_dim: int, stride: int, bottleneck: int, clusters: int, weight: float, **masked) -> None:
        super().__init__(input_dim=input_dim, stride=stride, bottleneck=bottleneck, **masked)
        self.weight = weight
        self.decoder = nn.ModuleDict({"frames": self.decoder, "clusters": nn.Linear(bottleneck, clusters)})
        self.register_buffer("means", torch.zeros(clusters, stride * input_dim))

    def grouped(self, features: torch.Tensor) -> torch.Tensor:
        """[B, T, D] to [B, ceil(T / stride), stride * D], with zeros behind the end."""
        whole = nn.functional.pad(features, (0, 0, 0, -features.shape[1] % self.stride))
        return whole.unflatten(1, (-1, self.stride)).flatten(2)

    @torch.no_grad()
    def initialize(self, batches: Batcher) -> None:
        """Fit the means to a sample of the unlabeled audio; see `masked` too."""
        super().initialize(batches)
        if not self.updates:
            return
        found, step = [], 0
        while sum(map(len, found)) < SAMPLED and step < len(batches.plan(0)):
            batch = batches.at(step)
            groups = self.grouped(batch.clean)
            found.append(groups[padding_mask(batch.lengths // self.stride, groups.shape[1])].cpu())
            step += 1
        vectors = torch.cat(found)[:SAMPLED].numpy()
        if len(vectors) < len(self.means):
            raise InputError(
                f"autoencoder.clusters={len(self.means)}: expected no more than there are groups of {self.stride} "
                f"frames to put into them ({len(vectors)}); lower it"
            )
        rng = seed_of(self.seed, "clusters")
        means, _ = kmeans2(vectors, len(self.means), iter=ITERATIONS, minit="points", rng=rng, missing="warn")
        self.means.copy_(torch.from_numpy(means))

    def decode(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """See the base."""
        return self.decoder["frames"](codes).reshape(len(codes), codes.shape[1] * self.stride, -1)

    def labels(self, features: torch.Tensor) -> torch.Tensor:
        """The cluster of each group of frames, [B, T, D] to [B, T / stride]; in full precision, or some get another."""
        groups = self.grouped(features.float())
        with torch.autocast(groups.device.type, enabled=False):
            return (groups @ self.means.T - self.means.square().sum(1) / 2).argmax(2)

    def beside(self, codes: torch.Tensor, cells: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """The weighted cross-entropy of what is hidden."""
        hidden = self.grouped(cells).all(2)
        count = self.total(hidden.sum()).clamp(min=1)
        scores, labels = self.decoder["clusters"](codes)[:, : hidden.shape[1]].float(), self.labels(clean)
        if not self.training:
            right = self.total(((scores.argmax(2) == labels) & hidden).sum()) / count
            self.log("val_cluster_accuracy", right, on_epoch=True, logger=False, batch_size=int(count))
        nats = nn.functional.cross_entropy(scores.transpose(1, 2), labels, reduction="none")
        return self.weight * self.total((nats * hidden).sum()) / count
