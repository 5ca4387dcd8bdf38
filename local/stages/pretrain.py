"""Stage 3: the autoencoder, trained on the unlabeled audio."""

import json
from pathlib import Path

from local.labels import subset
from local.stage import cell_name, stage


@stage(writes="pretrain", reads=("unlabeled",), resumes=True)
def run(cfg, partial) -> None:
    from lightning_modules import checkpoint
    from lightning_modules.fit import batcher, fit, place
    from local import archive, logger, manifest
    from local.config import plain

    unlabeled = Path(cfg.dirs.unlabeled)
    utterances = subset(manifest.read(unlabeled.parent / cfg.unlabeled.split), cfg.unlabeled.hours, seed=0)
    train = archive.read(unlabeled / cfg.unlabeled.split, cfg.unlabeled.cmvn, [u.id for u in utterances])
    dev = archive.read(unlabeled / "dev", cfg.unlabeled.cmvn)
    settings = plain(cfg, "autoencoder") | {"input_dim": train.width, "seed": cfg.seed}
    module = checkpoint.build(settings)
    train, dev = (batcher(module, place(data, cfg.trainer.accelerator)) for data in (train, dev))
    module.initialize(train.all())
    with logger.opened(cfg, partial, "pretrain") as run_logger:
        summary = fit(module, train, dev, partial, f"{cell_name(cfg)} pretrain", run_logger, dict(cfg.trainer))
    encoder = [p for name, p in module.named_parameters() if not name.startswith("decoder.")]
    summary |= {"parameters": sum(p.numel() for p in encoder), "hours": sum(u.duration for u in utterances) / 3600}
    checkpoint.save(partial / "autoencoder.pt", module, settings, unlabeled.name)
    (partial / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
