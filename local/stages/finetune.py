"""Stage 5: the recognizer, trained on the transcribed part of `train`."""

import json
import logging
import math
from pathlib import Path

from local import augmentation, logger, manifest, ranges, ranks
from local.config import check_whole, make, plain, signature
from local.corpora import normalizer
from local.errors import InputError
from local.frontend import autoencoder_path, checkpoint_path, features_of, source
from local.halving import Halving
from local.labels import check_hours, heard, transcribed
from local.marker import read_marker
from local.stage import cell_name, stage
from local.text import aligned, check_units, encode_all, feasibility

log = logging.getLogger(__name__)
_checked: set[tuple[str, str]] = set()  # features, and a signature of labels and units: many cells have the same


def _check(cfg) -> None:
    check_hours("labels.hours", cfg.labels.hours)
    check_whole("seed", cfg.seed, least=0)
    check_whole("labels.seed", cfg.labels.seed, least=0)
    check_units(plain(cfg, "units"))
    made_of = cfg.dirs.features, signature(cfg, "labels", "units")
    if not read_marker(cfg.dirs.features):
        heard(cfg.labels)
    elif made_of not in _checked:
        _labels(cfg)  # before hours of pretraining come to that
        _checked.add(made_of)
    ranges.check(cfg, "autoencoder")
    ranges.check(cfg, "recognizer")
    stride = plain(cfg, "autoencoder").get("stride", 1)
    if cfg.recognizer.stride % stride or not math.log2(cfg.recognizer.stride // stride).is_integer():
        raise InputError(
            f"recognizer.stride={cfg.recognizer.stride}, but the front end strides by {stride}; make it that, or a "
            "power of two times as much"
        )
    checkpoint_path(cfg)
    augmentation.check(cfg, "recognizer")
    ranks.check(cfg)
    logger.check(cfg)


def _files(cfg) -> list[str]:
    return [*augmentation.files(augmentation.asked(cfg, "recognizer")), *filter(None, [cfg.labels.hypotheses])]


def _labels(cfg) -> tuple[dict[str, list[str]], dict[str, list[list[int]]], int]:
    """Ids and labels by split, those of `train` that the recognizer is trained on, and how many nothing was heard in.

    Those of test sets are here for what they raise: units that no recognizer knows would be errors for certain.
    """
    texts = {split: manifest.used(cfg, split) for split in manifest.splits(Path(cfg.dirs.data)) if split != "pretrain"}
    texts["train"], silent = transcribed(texts["train"], cfg.labels, normalizer(cfg))
    units = [plain(cfg, "units")[key] for key in ("inventory", "folding")]
    ids = {split: [u.id for u in utterances] for split, utterances in texts.items()}
    return ids, {split: encode_all(utterances, *units) for split, utterances in texts.items()}, silent


@stage(writes="finetune", reads=("data", "features", "bottleneck"), check=_check, outside=_files, resumes=True)
@ranks.shared("finetune")
def run(cfg, partial) -> None:
    from lightning_modules.augmentation import Audio
    from lightning_modules.fit import batcher, fit, place
    from local import archive

    directory, cmvn = source(cfg)
    ids, labels, silent = _labels(cfg)
    if cfg.labels.hypotheses is not None:
        log.info(
            "[%s] finetune: %d utterances, those without labels as %s has them; %d left out, where nothing was heard",
            cell_name(cfg), len(ids["train"]), cfg.labels.hypotheses, silent,
        )  # fmt: skip
    asked = augmentation.asked(cfg, "recognizer")
    audio = Audio(directory / "train", cmvn, make(plain(cfg, "features")["extractor"])) if asked else None
    held = ranks.count(cfg) == 1  # of several processes each reads its own rows
    dev = archive.read(directory / "dev", cmvn, ids["dev"], held=False)
    own = directory / "train", cmvn, ids["train"]
    train = audio.read(ids["train"], held=False) if audio else archive.read(*own, held=False)
    input_stride = round(dev.frame_shift / archive.frame_shift(Path(cfg.dirs.features) / "train"))
    module, settings = _recognizer(cfg, dev.width, input_stride)  # which refuses strides that do not fit
    kept = _aligned(cfg, directory / "train", ids["train"], labels["train"], input_stride)
    dropped = len(labels["train"]) - len(kept)
    train, labels["train"] = train.select(kept), [labels["train"][i] for i in kept]
    train = batcher(module, place(train, cfg.trainer.accelerator, held), labels["train"], crop=False, audio=audio)
    dev = batcher(module, place(dev, cfg.trainer.accelerator, held), labels["dev"], crop=False)
    with logger.opened(cfg, partial, "finetune") as run_logger:
        title, more = f"{cell_name(cfg)} finetune", {"watch": Halving(cfg)} if cfg.halving else {}
        summary = fit(module, train, dev, partial, title, run_logger, dict(cfg.trainer), **more)
        if cfg.trainer.get("rank"):
            return  # number 0 writes
        summary["health"] = _health(cfg, partial, dropped)
        numbers = {f"health/{key}": value for key, value in summary["health"].items() if isinstance(value, int | float)}
        run_logger.log_metrics(numbers, step=module.updates)
    summary["parameters"] = sum(p.numel() for p in module.parameters())
    summary["augmentation"] = augmentation.policy(cfg)
    _save(cfg, partial, module, settings, summary)


def _aligned(cfg, directory: Path, ids: list[str], labels: list[list[int]], input_stride: int) -> list[int]:
    """Which utterances CTC can align, at the fastest speed too; the same in arms whose input does not change speed.

    `directory` is what the recognizer reads, of which another toolkit may have made a little less.
    """
    from local import archive

    frames = archive.lengths(Path(cfg.dirs.features) / "train", ids)
    frames = augmentation.fewest(frames, plain(cfg, "recognizer")["augmentation"])
    there = archive.lengths(directory, ids)
    frames = [min(-(-count // input_stride), size) for count, size in zip(frames, there, strict=True)]
    log.info("[%s] finetune: %s", cell_name(cfg), feasibility(labels, frames, input_stride))
    kept = aligned(labels, frames, cfg.recognizer.stride // input_stride)
    if not kept:
        raise InputError(
            f"recognizer.stride={cfg.recognizer.stride}: CTC can align none of {len(ids)} labeled utterances, which "
            "have more units than frames; lower it, or choose longer units, as units=bpe"
        )
    return kept


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
    from lightning_modules import checkpoint

    units = plain(cfg, "units")
    settings = plain(cfg, "recognizer") | {
        "input_dim": input_dim, "input_stride": input_stride, "units": units["inventory"],
        "scoring": units["scoring"], "seed": cfg.seed, "autoencoder": None,
    }  # fmt: skip
    path = checkpoint_path(cfg)
    if path is None:
        return checkpoint.build(settings), settings
    asked = plain(cfg, "autoencoder")
    pretrained, settings["autoencoder"] = checkpoint.load(path, features_of(cfg.dirs.features), asked)
    module = checkpoint.build(settings)
    module.carry(pretrained, *_statistics(cfg.dirs.frontend))
    return module, settings


def _statistics(directory: str) -> list:
    """Mean and deviation [D] of the pretraining part of an archive, as tensors."""
    import torch

    from local import archive

    return [*map(torch.from_numpy, archive.statistics(Path(directory) / "pretrain"))]


def _input(cfg) -> dict | None:
    """How audio becomes what the recognizer reads, for its use by itself; None if another toolkit extracted that."""
    from lightning_modules import checkpoint

    features = {key: plain(cfg, "features")[key] for key in ("extractor", "cmvn")}
    found = features | {"statistics": _statistics(cfg.dirs.features) if cfg.features.cmvn == "global" else None}
    if source(cfg)[0] == Path(cfg.dirs.features):
        return found | {"frontend": None}
    if cfg.dirs.pretrain is None:
        return None
    module, settings = checkpoint.load(autoencoder_path(cfg), features_of(cfg.dirs.features))
    frontend = {"settings": settings, "state": module.state_dict(), "statistics": _statistics(cfg.dirs.frontend)}
    return found | {"frontend": frontend}


def _save(cfg, partial: Path, module, settings: dict, summary: dict) -> None:
    from lightning_modules import checkpoint

    checkpoint.save(partial / "recognizer.pt", module, settings, features_of(cfg.dirs.features), input=_input(cfg))
    (partial / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
