"""Stage 2: the feature archive of every split, with the statistics that CMVN needs."""

from pathlib import Path

from omegaconf import OmegaConf

from local import manifest
from local.errors import InputError
from local.stage import stage


def _check(cfg) -> None:
    if cfg.features.store not in ("frames", "audio"):
        raise InputError(f"features.store={cfg.features.store}; expected frames, or audio to store that too")


@stage(writes="features", reads=("data",), check=_check, resumes=True)
def run(cfg, partial) -> None:
    from local.features import extract  # which imports PyTorch

    data = Path(cfg.dirs.data)
    extract(
        data, sorted(manifest.splits(data)), OmegaConf.to_container(cfg.features.extractor),
        partial, Path(cfg.dirs.features), cfg.machine.workers, cfg.corpus.get("resample", False),
        tuple(cfg.corpus.allow_overlap), cfg.corpus.on_error == "skip", cfg.features.store,
    )  # fmt: skip
