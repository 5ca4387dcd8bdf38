"""Stage 2: the feature archive of every split, with the statistics that CMVN needs."""

from pathlib import Path

from omegaconf import OmegaConf

from local.features import extract
from local.stage import stage


@stage(writes="features", reads=("data",), resumes=True)
def run(cfg, partial) -> None:
    splits = sorted(p.name for p in Path(cfg.dirs.data).iterdir() if (p / "wav.scp").exists())
    extract(
        Path(cfg.dirs.data), splits, OmegaConf.to_container(cfg.features.extractor),
        partial, Path(cfg.dirs.features), cfg.machine.workers, cfg.corpus.get("resample", False),
        tuple(cfg.corpus.allow_overlap),
    )  # fmt: skip
