"""Stage 3: the autoencoder, trained on the unlabeled audio."""

import json
from pathlib import Path

from local import audit, augmentation, logger, ranges, ranks
from local.config import check_whole, make, plain
from local.errors import InputError
from local.frontend import features_of
from local.labels import check_hours, subset
from local.manifest import held_out
from local.stage import cell_name, stage


def _check(cfg) -> None:
    if held_out(cfg.unlabeled.split):
        raise InputError(f"unlabeled.split={cfg.unlabeled.split}: errors are measured on that; use pretrain or train")
    check_whole("seed", cfg.seed, least=0)
    ranges.check(cfg, "autoencoder")
    check_hours("labels.hours", cfg.labels.hours)  # before hours of training come to that
    check_hours("unlabeled.hours", cfg.unlabeled.hours)
    audit.check_unlabeled(cfg)
    augmentation.check(cfg, "autoencoder")
    ranks.check(cfg)
    logger.check(cfg)


def _files(cfg) -> list[str]:
    return augmentation.files(augmentation.asked(cfg, "autoencoder"))


@stage(writes="pretrain", reads=("unlabeled",), check=_check, outside=_files, resumes=True)
@ranks.shared("pretrain")
def run(cfg, partial) -> None:
    from lightning_modules import checkpoint
    from lightning_modules.augmentation import Audio
    from lightning_modules.fit import batcher, fit, place
    from local import archive, manifest

    unlabeled = Path(cfg.dirs.unlabeled)
    source = unlabeled / cfg.unlabeled.split, cfg.unlabeled.cmvn
    there = manifest.read_archived(unlabeled.parent / cfg.unlabeled.split, source[0])
    utterances = subset(there, cfg.unlabeled.hours, seed=0)
    ids = [u.id for u in utterances]
    asked = augmentation.asked(cfg, "autoencoder")
    audio = Audio(*source, make(plain(cfg, "features")["extractor"])) if asked else None
    held = ranks.count(cfg) == 1  # of several processes each reads its own rows
    train = audio.read(ids, held=False) if audio else archive.read(*source, ids, held=False)
    dev = archive.read(unlabeled / "dev", cfg.unlabeled.cmvn, held=False)
    settings = plain(cfg, "autoencoder") | {"input_dim": dev.width, "seed": cfg.seed}
    module = checkpoint.build(settings)
    module.check_features(plain(cfg, "features")["extractor"])
    train = batcher(module, place(train, cfg.trainer.accelerator, held), audio=audio)
    dev = batcher(module, place(dev, cfg.trainer.accelerator, held))
    module.initialize(train)
    with logger.opened(cfg, partial, "pretrain") as run_logger:
        summary = fit(module, train, dev, partial, f"{cell_name(cfg)} pretrain", run_logger, dict(cfg.trainer))
    if cfg.trainer.get("rank"):
        return  # number 0 writes
    encoder = [p for name, p in module.named_parameters() if not name.startswith("decoder.")]
    summary |= {"parameters": sum(p.numel() for p in encoder), "hours": sum(u.duration for u in utterances) / 3600}
    checkpoint.save(partial / "autoencoder.pt", module, settings, features_of(unlabeled))
    (partial / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
