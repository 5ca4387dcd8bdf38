"""The course of a training: on disk whatever the logger, on the terminal while it runs."""

import logging
import math
import time
from collections.abc import Callable

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger

from local.errors import InputError

log = logging.getLogger(__name__)
LINE_EVERY = 15  # seconds


class History(pl.Callback):
    """A row for each validation: step, mean training loss since the last, learning rate, seconds, metrics.

    It travels in the checkpoint, so a resumed training has one history; `seconds` counts what was kept, of all devices
    together. `watch` is called with the rows after each, and may raise to end the training.
    """

    def __init__(self, title: str, watch: Callable[[list[dict]], None] = lambda rows: None) -> None:
        self.title, self.watch, self.rows, self.seconds = title, watch, [], 0.0
        self.losses: list = []
        self.first_step, self.line = 0, 0.0

    def state_dict(self) -> dict:
        """For the checkpoint, which may be written between two validations."""
        losses = torch.stack(self.losses).cpu() if self.losses else torch.empty(0)
        return {"rows": self.rows, "seconds": self._seconds(), "losses": losses}

    def load_state_dict(self, state: dict) -> None:
        """From the checkpoint."""
        self.rows, self.seconds, self.losses = state["rows"], state["seconds"], list(state["losses"])

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log what the checkpoint brought, even if no step is left: CSVLogger begins its file anew."""
        if isinstance(trainer.logger, CSVLogger):
            for row in self.rows:
                self._record(trainer, row)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self.start = self.line = time.monotonic()
        self.devices = trainer.world_size
        self.first_step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        """Collect the loss without waiting for the device."""
        self.losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)  # by which Lightning divides it
        if time.monotonic() - self.line > LINE_EVERY:
            self._say(trainer, f"loss {float(self.losses[-1]):.4f}")

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Add a row and log it."""
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if not math.isfinite(metrics.get("val_loss", 0)):  # weights may be so since the last loss of training
            raise InputError(
                f"{module.name}: the loss on dev is {metrics['val_loss']} at step {trainer.global_step}, expected a "
                "finite number; lower its learning rate"
            )
        row = {
            "step": trainer.global_step,
            "loss": float(sum(self.losses)) / max(1, len(self.losses)),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(self._seconds(), 2),
            **metrics,
        }
        self.losses.clear()
        self.rows.append(row)
        self._record(trainer, row)
        self._say(trainer, " ".join(f"{key} {row[key]:.4g}" for key in ("loss", *sorted(metrics))))
        self.watch(self.rows)

    def _seconds(self) -> float:
        return self.seconds + self.devices * (time.monotonic() - self.start)

    def _record(self, trainer: pl.Trainer, row: dict) -> None:
        if trainer.logger:
            metrics = {key: value for key, value in row.items() if key not in ("step", "seconds")}
            trainer.logger.log_metrics(metrics, step=row["step"])

    def _say(self, trainer: pl.Trainer, what: str) -> None:
        self.line = time.monotonic()
        done, updates = trainer.global_step, trainer.max_steps
        left = (self.line - self.start) / max(1, done - self.first_step) * (updates - done)
        log.info("[%s] %d/%d %s, %d:%02d left", self.title, done, updates, what, left // 60, left % 60)
