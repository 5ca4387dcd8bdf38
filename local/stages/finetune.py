"""Stage 5: the recognizer, trained on the transcribed part of `train`."""

import json
import logging
from pathlib import Path

from local.frontend import checkpoint_path, source
from local.labels import subset
from local.stage import cell_name, stage
from local.text import aligned, encode_all, feasibility

log = logging.getLogger(__name__)


@stage(writes="finetune", reads=("data", "features", "bottleneck"), resumes=True)
def run(cfg, partial) -> None:
    from lightning_modules.fit import batcher, fit, place
    from local import archive, logger, manifest
    from local.config import plain

    directory, cmvn = source(cfg)
    texts = {
        "train": subset(manifest.read(Path(cfg.dirs.data) / "train"), cfg.labels.hours, cfg.labels.seed),
        "dev": manifest.read(Path(cfg.dirs.data) / "dev"),
    }
    units = [plain(cfg, "units")[key] for key in ("inventory", "folding")]
    encode_all(manifest.read(Path(cfg.dirs.data) / "test"), *units)  # or its errors could not be avoided
    frames, labels = {}, {}
    for split, utterances in texts.items():
        frames[split] = archive.read(directory / split, cmvn, [u.id for u in utterances])
        labels[split] = encode_all(utterances, *units)
    input_stride = round(frames["train"].frame_shift / archive.frame_shift(Path(cfg.dirs.features) / "train"))
    stride = cfg.recognizer.stride // input_stride
    lengths = frames["train"].lengths.tolist()
    log.info("[%s] finetune: %s", cell_name(cfg), feasibility(labels["train"], lengths, input_stride))
    kept = aligned(labels["train"], lengths, stride)
    dropped = len(labels["train"]) - len(kept)
    frames["train"], labels["train"] = frames["train"].select(kept), [labels["train"][i] for i in kept]
    module, settings = _recognizer(cfg, frames["train"].width, input_stride)
    train, dev = (
        batcher(module, place(frames[split], cfg.trainer.accelerator), labels[split], crop=False) for split in frames
    )
    with logger.opened(cfg, partial, "finetune") as run_logger:
        summary = fit(module, train, dev, partial, f"{cell_name(cfg)} finetune", run_logger, dict(cfg.trainer))
        summary["health"] = _health(cfg, partial, dropped)
        numbers = {f"health/{key}": value for key, value in summary["health"].items() if isinstance(value, int | float)}
        run_logger.log_metrics(numbers, step=module.updates)
    summary["parameters"] = sum(p.numel() for p in module.parameters())
    _save(cfg, partial, module, settings, summary)


def _health(cfg, partial: Path, dropped: int) -> dict:
    """How CTC fared, logged in a line; a warning unless it speaks."""
    from lightning_modules.health import health

    found = health(json.loads((partial / "history.json").read_text(encoding="utf-8"))) | {"dropped": dropped}
    if found["state"] == "untrained":
        return found
    first = found["first_emission"]
    log.log(
        logging.INFO if found["state"] == "speaking" else logging.WARNING,
        "[%s] finetune: %s: %s, now %.0f %% of frames blank and %.0f %% of hypotheses empty, "
        "%d utterances left out as infeasible",
        cell_name(cfg), found["state"], f"first words by step {first}" if first else "no words",
        100 * found["blank_rate"], 100 * found["empty_rate"], dropped,
    )  # fmt: skip
    return found


def _recognizer(cfg, input_dim: int, input_stride: int):
    """The untrained recognizer around its pretrained front end, and the settings that rebuild it."""
    import torch

    from lightning_modules import checkpoint
    from local import archive
    from local.config import plain

    units = plain(cfg, "units")
    settings = plain(cfg, "recognizer") | {
        "input_dim": input_dim, "input_stride": input_stride, "units": units["inventory"],
        "scoring": units["scoring"], "seed": cfg.seed, "autoencoder": None,
    }  # fmt: skip
    path = checkpoint_path(cfg)
    if path is None:
        return checkpoint.build(settings), settings
    pretrained, settings["autoencoder"] = checkpoint.load(path, Path(cfg.dirs.features).name)
    module = checkpoint.build(settings)
    module.carry(pretrained, *map(torch.from_numpy, archive.statistics(Path(cfg.dirs.frontend) / "pretrain")))
    return module, settings


def _save(cfg, partial: Path, module, settings: dict, summary: dict) -> None:
    from lightning_modules import checkpoint

    checkpoint.save(partial / "recognizer.pt", module, settings, Path(cfg.dirs.features).name)
    (partial / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
