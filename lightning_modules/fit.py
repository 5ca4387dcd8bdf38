"""One training, from its last checkpoint if it has one."""

import json
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy

from lightning_modules import checkpoint
from lightning_modules.augmentation import Audio, AudioBatcher
from lightning_modules.batch import Batcher
from lightning_modules.datamodule import DataModule
from lightning_modules.history import History
from lightning_modules.training import Training
from local.errors import InputError
from local.frames import Frames, OnDisk

# Lightning's advice about worker processes and logging intervals does not fit batches that lie in memory.
warnings.filterwarnings("ignore", module="pytorch_lightning")
for library in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(library).setLevel(logging.WARNING)
log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", message="Experiment logs directory")  # whose rows History writes again
warnings.filterwarnings("ignore", message="The `srun` command is available")
warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


def device(accelerator: str) -> torch.device:
    """Where training data lies."""
    return torch.device("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")


def _fits(data: Frames, where: torch.device, kind: torch.dtype) -> bool:
    """Whether an archive takes less than half of this machine's memory, and of what is free on the device."""
    numbers = int(data.lengths.sum()) * data.width
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    room = torch.cuda.mem_get_info(where)[0] if where.type == "cuda" else machine
    return numbers * data.frames.dtype.itemsize < machine / 2 and numbers * kind.itemsize < room / 2


def place(data: Frames, accelerator: str, held: bool = True) -> Frames:
    """An archive on the training device; its frames in half precision on a GPU, its audio as it is.

    One that lies on disk is read into memory, if it is to be `held` and fits; or else a part of it for each batch.
    """
    where = device(accelerator)
    if where.type == "cpu" and accelerator not in ("auto", "cpu"):
        raise InputError(f"trainer.accelerator={accelerator}, but no such device is found; use auto or cpu")
    kind = torch.float16 if data.frames.is_floating_point() and where.type == "cuda" else data.frames.dtype
    if held and isinstance(data, OnDisk):
        if _fits(data, where, kind):
            data = data.in_memory()
        else:
            log.warning("%d utterances do not fit into memory, and are read for each batch", len(data.ids))
    return data if where.type == "cpu" else data.map(lambda frames: frames.to(where, kind))


@contextmanager
def inference(module: Training) -> Iterator[None]:
    """Use `module`, without gradients, in the precision of its training and validation, at which it is faster.

    A processor without bfloat16 takes single precision in its place.
    """
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(module.precision_name)
    kind = module.device.type
    able = kind == "cuda" or half == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with torch.inference_mode(), torch.autocast(kind, half, enabled=half is not None and able):
        yield


def batcher(
    module: Training, data: Frames, labels: list | None = None, crop: bool = True, audio: Audio | None = None
) -> Batcher:
    """Batches of the size that the module's settings ask for; of `audio`, augmented as they say."""
    frame_shift = audio.extractor.frame_shift if audio else data.frame_shift
    frames = round(module.batch_seconds / frame_shift)
    longest = round(module.crop_seconds / frame_shift) if crop and module.crop_seconds else None
    if audio:
        return AudioBatcher(data, frames, module.seed, longest, labels, audio, module.augmentation)
    return Batcher(data, frames, module.seed, longest, labels)


class _Kept(ModelCheckpoint):
    """The checkpoint best on dev, and the last."""

    def check_monitor_top_k(self, trainer: pl.Trainer, current: torch.Tensor | None = None) -> bool:
        """Of those as good the later is kept: where all words are wrong still, the loss has fallen meanwhile."""
        best = super().check_monitor_top_k(trainer, current)
        return best or current is not None and bool(current == self.best_model_score)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """After each validation; Lightning itself writes the last one only if it is the best, too."""
        super().on_train_epoch_end(trainer, module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def load_state_dict(self, state: dict) -> None:
        """From the last checkpoint; Lightning itself forgets the best if the folder was moved meanwhile."""
        if state["best_model_score"] is None:
            return
        best, last = (str(Path(self.dirpath) / f"{name}.ckpt") for name in ("best", "last"))
        here = {"dirpath": self.dirpath, "best_model_path": best, "kth_best_model_path": best, "last_model_path": last}
        super().load_state_dict(state | here | {"best_k_models": {best: state["best_model_score"]}})

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, content: dict) -> None:
        """A new stretch begins where it was written, as after a validation.

        Lightning would count the batches of the last one, of other parts, and begin behind them.
        """
        loops = content["loops"]["fit_loop"]
        batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
        batches["current"].update(dict.fromkeys(batches["current"], 0))
        batches["total"]["completed"] = batches["total"]["processed"]
        batches["is_last_batch"] = loops["epoch_loop.val_loop.batch_progress"]["is_last_batch"] = True
        for counted in epochs.values():
            counted["processed"] = counted["ready"]


class _Mortal(pl.Callback):
    """What SIGTERM did before the training it does within it: it ends the process.

    Lightning would go on to the next batch, while loggers' processes end, and leave with exit status 0.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Lightning has put its own handler there by now."""
        if threading.current_thread() is threading.main_thread():  # as Lightning does; no other one may
            signal.signal(signal.SIGTERM, self.handler)


def fit(
    module: Training, train: Batcher, dev: Batcher, out: Path, title: str, logger, trainer: dict, **history
) -> dict:
    """Train `module` and leave it with the weights that were best on dev.

    Writes `out`/history.json, and checkpoints into `out`/checkpoints, from which it continues. Returns
    `updates`, `device_seconds`, and the validation metrics of the chosen checkpoint. `trainer` holds Lightning's
    settings; `checkpoint_minutes`, after which one is written between two validations; `auto_batch`, whether a batch
    that does not fit into memory is taken in parts, twice as many each time; and `rank`, if this is one of the
    processes of local/ranks.py, of which number 0 writes. `history` are settings of History, as `watch`.
    """
    summary = {"updates": module.updates, "device_seconds": 0.0}
    rows = []
    if module.updates:
        settings = {"devices": 1, "num_nodes": 1, "checkpoint_minutes": 10} | trainer
        halve, parts = settings.pop("auto_batch", False), 1
        begins = {key: value.clone() for key, value in module.state_dict().items()}
        while (found := _trained(module, train, dev, out, History(title, **history), logger, settings, parts)) is None:
            if not halve or parts >= max(map(len, train.plan(None))):
                raise InputError(_too_large(module, parts))
            parts *= 2
            log.warning("[%s] out of memory: each batch is taken in %d parts from now on", title, parts)
            module.load_state_dict(begins)  # it goes on from the last checkpoint, if there is one already
        rows, best = found
        module.load_state_dict(best["state_dict"])
        chosen = next(row for row in rows if row["step"] == best["global_step"])
        summary |= {key: value for key, value in chosen.items() if key.startswith("val_")}
        summary |= {"chosen_step": chosen["step"], "device_seconds": rows[-1]["seconds"]}
    if not trainer.get("rank"):
        (out / "history.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return summary


def _trained(module: Training, train, dev, out: Path, history: History, logger, settings: dict, parts: int):
    """The rows of the history and the best checkpoint, or None if a batch in `parts` does not fit into memory."""
    checkpoints, settings = out / "checkpoints", dict(settings)
    often = timedelta(minutes=settings.pop("checkpoint_minutes"))
    averaging = [EMAWeightAveraging(decay=module.average)] if module.average else []
    keep = _Kept(
        checkpoints, filename="best", monitor=module.monitor, save_last=True,
        save_on_train_epoch_end=True, enable_version_counter=False,
    )  # fmt: skip
    between = ModelCheckpoint(checkpoints, filename="last", train_time_interval=often, enable_version_counter=False)
    one = settings.pop("rank", None) is None
    strategy = "auto" if one else DDPStrategy(find_unused_parameters=True)  # those of frozen layers
    # Of several processes the environment tells; one is one, also where SLURM's variables are set.
    plugins = [checkpoint.WholeFiles(), LightningEnvironment() if one else TorchElasticEnvironment()]
    engine = pl.Trainer(
        max_steps=module.updates, max_epochs=-1, reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0,
        callbacks=[_Mortal(), *averaging, history, between, keep], plugins=plugins, logger=logger or False,
        precision=module.precision_name, gradient_clip_val=5.0, accumulate_grad_batches=parts,
        enable_progress_bar=False, enable_model_summary=False, strategy=strategy, **settings,
    )  # fmt: skip
    data = DataModule(train, dev, module.updates, module.check_every, parts)
    try:
        engine.fit(module, data, ckpt_path=_whole(checkpoints), weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except (RuntimeError, MemoryError) as error:  # on a CPU it is no more than that
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(error):
            raise
        return None
    return history.rows, torch.load(keep.best_model_path, map_location="cpu", weights_only=True)


def _too_large(module: Training, parts: int) -> str:
    setting = f"{module.group}.batch_seconds={module.batch_seconds:g}"
    if parts > 1:
        return f"{module.name}: {setting}: not even one utterance at a time fits into memory; lower its width"
    return f"{module.name}: {setting}: a batch is too large for the memory; lower it, or set trainer.auto_batch=true"


def _whole(checkpoints: Path) -> Path | None:
    """Of a killed training the last checkpoint, to continue from, or if that is damaged the one before it."""
    for path in (checkpoints / "last.ckpt", checkpoints / checkpoint.BEFORE):
        if not path.exists():
            continue
        try:
            states = torch.load(path, map_location="cpu", weights_only=True)["callbacks"]
            if any(state.get("best_model_score") is not None for state in states.values()):
                torch.load(checkpoints / "best.ckpt", map_location="cpu", weights_only=True)
            return path
        except Exception as error:  # torch raises many kinds for a cut file
            log.warning("%s: no readable checkpoint (%s), or no best one", path, type(error).__name__)
    return None
