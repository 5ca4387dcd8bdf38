"""Principal components (Pearson 1901; Hotelling 1933) of a window of frames: the best linear autoencoder."""

import torch

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.batch import Batcher, padding_mask
from lightning_modules.subsampling import splice
from local.errors import InputError


class PCA(Autoencoder):
    """The first `bottleneck` components of `2 * context + 1` frames around every `stride`-th; nothing is trained.

    `mean` [W] and `components` [bottleneck, W], W being the frames of a window times D, in order of variance.
    """

    def __init__(self, *, input_dim: int, context: int, stride: int, bottleneck: int, **training) -> None:
        # A recipe sets updates and the like for whatever is trained.
        idle = {"updates": 0, "learning_rate": 0.0, "warmup": 0.0, "check_every": 1, "precision": "32-true"}
        super().__init__(**idle | training | {"trained": False})
        width = (2 * context + 1) * input_dim
        if bottleneck > width or context < stride - 1:
            raise InputError(
                f"autoencoder.bottleneck={bottleneck} context={context} stride={stride}: expected at most {width} "
                "components, and a context that reaches from one window to the next"
            )
        self.context, self.stride, self.dim = context, stride, bottleneck
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("components", torch.eye(bottleneck, width))

    def initialize(self, batches: Batcher) -> None:
        """Fit mean and components to all frames."""
        count, total, squares = 0, 0.0, 0.0
        for batch in batches.all():
            windows = splice(batch.features, self.context, self.stride)
            windows = windows[padding_mask(-(-batch.lengths // self.stride), windows.shape[1])].double()
            count, total, squares = count + len(windows), total + windows.sum(0), squares + windows.T @ windows
        mean = total / count
        _, vectors = torch.linalg.eigh(squares / count - torch.outer(mean, mean))
        components = vectors.flip(1).T[: self.dim]
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        self.mean.copy_(mean)
        self.components.copy_(components * largest.sign())  # a component's sign is free: one that is always the same

    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base."""
        return (splice(features, self.context, self.stride) - self.mean) @ self.components.T, -(-lengths // self.stride)

    def decode(self, codes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """See the base; of each reconstructed window, the frames up to the next window's center."""
        windows = (codes @ self.components + self.mean).unflatten(2, (2 * self.context + 1, -1))
        return windows[:, :, self.context : self.context + self.stride].flatten(1, 2)
