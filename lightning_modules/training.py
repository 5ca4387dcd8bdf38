"""What every training shares: its settings, seeds by step, the optimizer, and a stop when the loss is not finite."""

import math

import pytorch_lightning as pl
import torch

from lightning_modules.batch import Batch, seed_of
from local.errors import InputError

LOOK_EVERY = 50  # updates between two looks at a GPU's losses, for which the processor waits


class Training(pl.LightningModule):
    """A module trained for a fixed number of updates with AdamW, warm-up and linear decay.

    `updates` and `check_every` count updates, `warmup` is a share of them, `batch_seconds` is the audio in one
    update and `crop_seconds` the longest excerpt of an utterance; `augmentation` says how stored audio is changed in
    training (lightning_modules/augmentation.py). `average` is the decay of a moving average of the weights, which is
    then validated and kept (Polyak and Juditsky 1992). Masks and dropout are drawn from (seed, step), so a resumed
    training needs no random states. `monitor` names the validation metric that chooses the checkpoint.
    """

    monitor: str
    group: str  # of the configuration, in which its settings are

    def __init__(
        self,
        *,
        name: str,
        seed: int,
        updates: int,
        learning_rate: float,
        warmup: float,
        batch_seconds: float,
        check_every: int,
        precision: str,
        crop_seconds: float | None = None,
        augmentation: dict | None = None,
        average: float | None = None,
    ) -> None:
        super().__init__()
        self.name, self.seed, self.updates, self.check_every = name, seed, updates, check_every
        self.learning_rate, self.warmup, self.precision_name = learning_rate, warmup, precision
        self.batch_seconds, self.crop_seconds, self.augmentation = batch_seconds, crop_seconds, augmentation
        self.average = average
        self.unseen: list[tuple[int, list[str], torch.Tensor]] = []  # step, ids and loss of batches not yet looked at
        torch.manual_seed(seed_of(seed, "initialization"))  # before a subclass makes its layers

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Reseed."""
        part = [batch.part] if batch.part else []
        torch.manual_seed(seed_of(self.seed, "step", self.global_step, *part))

    def on_validation_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Validation masks are the same each time."""
        torch.manual_seed(seed_of(self.seed, "validation", batch_idx))

    def parameter_groups(self) -> list[dict]:
        """Groups for the optimizer; a group's `lr` may differ from `learning_rate`."""
        return [{"params": list(self.parameters())}]

    def configure_optimizers(self) -> dict:
        """AdamW; the rate rises over the `warmup` share of the updates and falls linearly to zero."""
        # Not fused: Lightning does not clip the gradients of a fused optimizer in mixed precision.
        optimizer = torch.optim.AdamW(self.parameter_groups(), lr=self.learning_rate, weight_decay=0.01)
        rise = max(1, round(self.warmup * self.updates))
        fall = max(1, self.updates - rise)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / rise, max(0, self.updates - step) / fall)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def finite(self, loss: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss, weighed by the batch's share; raises InputError with step and ids if one is not finite.

        On a GPU some updates later, but before a checkpoint is written.
        """
        self.unseen.append((self.global_step, batch.ids, loss.detach()))
        if self.device.type == "cpu" or len(self.unseen) == LOOK_EVERY:
            self._look()
        return loss if batch.share == 1 else batch.share * loss

    def on_validation_start(self) -> None:
        """Look at the rest of the losses: a checkpoint is written after it."""
        self._look()

    def _look(self) -> None:
        losses = torch.stack([loss for *_, loss in self.unseen]).tolist() if self.unseen else []
        for (step, ids, _), loss in zip(self.unseen, losses, strict=True):
            if not math.isfinite(loss):
                raise InputError(
                    f"{self.name}: the loss is {loss} at step {step}, expected a finite number; lower its learning "
                    f"rate, or look at the utterances of this batch: {' '.join(ids)}"
                )
        self.unseen.clear()
