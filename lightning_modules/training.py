"""What every training shares: its settings, seeds by step, the optimizer, and a stop when the loss is not finite."""

import math
from collections.abc import Callable

import pytorch_lightning as pl
import torch
from torch import distributed
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_modules.batch import Batch, Rows, seed_of
from local.errors import InputError

LOOK_EVERY = 50  # updates between two looks at a GPU's losses, for which the processor waits


class Training(pl.LightningModule):
    """A module trained for a fixed number of updates with AdamW, warm-up and linear decay.

    `updates` and `check_every` count updates, `warmup` is a share of them, `batch_seconds` is the audio in one
    update and `crop_seconds` the longest excerpt of an utterance; `augmentation` says how stored audio is changed in
    training (lightning_modules/augmentation.py). `average` is the decay of a moving average of the weights, which is
    then validated and kept (Polyak and Juditsky 1992). Masks and dropout are drawn from (seed, step), so a resumed
    training needs no random states. `monitor` names the validation metric that chooses the checkpoint.

    Where several processes share a training, each has some rows of a batch, and what is drawn (but dropout), summed and
    counted is the whole batch's: `draw`, `total` and `gathered` see to that. So losses and gradients are, but for
    dropout, those of one process.
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
        self.rows: Rows | None = None  # of the batch at hand, if other processes have others
        self.generator: torch.Generator | None = None  # of what all of them draw alike; torch's own, if there are none
        torch.manual_seed(seed_of(seed, "initialization"))  # before a subclass makes its layers

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Reseed."""
        part = [batch.part] if batch.part else []
        self.reseed(batch, "step", self.global_step, *part)

    def on_validation_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Validation masks are the same each time."""
        self.reseed(batch, "validation", batch_idx)

    def reseed(self, batch: Batch, *what: object) -> None:
        """Make all that is drawn for a batch a function of `what` it is for; dropout is each process's own."""
        self.rows = batch.rows
        seed = seed_of(self.seed, *what)
        if self.rows:
            self.generator = torch.Generator(batch.features.device).manual_seed(seed)
            seed = seed_of(seed, "process", self.global_rank)
        torch.manual_seed(seed)

    def draw(self, kind: Callable, size: tuple[int, ...], device: torch.device) -> torch.Tensor:
        """Random numbers [B, ...], by torch.rand or the like; for some rows, those that the whole batch gives them."""
        if self.rows is None:
            return kind(size, device=device)
        return kind((self.rows.whole, *size[1:]), device=device, generator=self.generator)[self.rows.taken]

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over the processes that share a batch of what each has of it, the same in all of them.

        Their gradients, which are averaged, make that of the sum.
        """
        if self.rows is None:
            return x
        x = x if self.rows.count else torch.where(torch.zeros_like(x, dtype=torch.bool), x, 0)
        distributed.all_reduce(whole := x.detach().clone())
        return whole + distributed.get_world_size() * (x - x.detach()) if x.requires_grad else whole

    def gathered(self, x: torch.Tensor) -> torch.Tensor:
        """The rows [B, ...] of all processes that share a batch, in its order."""
        return x if self.rows is None else torch.cat(gather_all_tensors(x[: self.rows.count]))

    def parameter_groups(self) -> list[dict]:
        """Groups for the optimizer; a group's `lr` may differ from `learning_rate`."""
        return [{"params": list(self.parameters())}]

    def configure_optimizers(self) -> dict:
        """AdamW; the rate rises over the `warmup` share of the updates and falls linearly to zero."""
        # Fused it takes a third of the time on a CPU; but Lightning does not clip its gradients in mixed precision.
        optimizer = torch.optim.AdamW(
            self.parameter_groups(), lr=self.learning_rate, weight_decay=0.01, fused="mixed" not in self.precision_name
        )
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
        ids = batch.ids[: batch.rows.count] if batch.rows else batch.ids
        self.unseen.append((self.global_step, ids, loss.detach()))
        if self.device.type == "cpu" or len(self.unseen) == LOOK_EVERY:
            self._look()
        return loss if batch.share == 1 else batch.share * loss

    def on_validation_start(self) -> None:
        """Look at the rest of the losses: a checkpoint is written after it."""
        self._look()

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """And between two validations."""
        self._look()

    def _look(self) -> None:
        losses = torch.stack([loss for *_, loss in self.unseen]).tolist() if self.unseen else []
        for (step, ids, _), loss in zip(self.unseen, losses, strict=True):
            if not math.isfinite(loss):
                if self.rows:  # all processes come here, for they have the same loss
                    distributed.all_gather_object(each := [None] * distributed.get_world_size(), ids)
                    ids = sum(each, [])
                raise InputError(
                    f"{self.name}: the loss is {loss} at step {step}, expected a finite number; lower its learning "
                    f"rate, or look at the utterances of this batch: {' '.join(ids)}"
                )
        self.unseen.clear()
