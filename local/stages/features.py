"""Stage 2: the feature archive of every split, with the statistics that CMVN needs.

On a cluster, `machine.shares` jobs may compute them first, each in a directory of its own beside the archive's: this
very stage with a `machine.part` such as `.1-of-4`, which is in the directory's name.
"""

import copy
import re
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

from local import manifest
from local.config import named
from local.errors import InputError
from local.stage import stage


def _check(cfg) -> None:
    if cfg.features.store not in ("frames", "audio"):
        raise InputError(f"features.store={cfg.features.store}; expected frames, or audio to store that too")


def _shares(cfg) -> Iterator[Path]:
    """The shares of this archive that are done, and of the settings and the data of today."""
    final = Path(cfg.dirs.features)
    for made in final.parent.glob(f"{final.name}.*-of-*"):
        share = named(copy.deepcopy(cfg))
        share.dirs.features = str(made)
        if run.state(share)[0] == "done":
            yield made


@stage(writes="features", reads=("data",), check=_check, resumes=True)
def run(cfg, partial) -> None:
    from local.features import extract, take_over  # which imports PyTorch

    data, final = Path(cfg.dirs.data), Path(cfg.dirs.features)
    share = re.fullmatch(r"\.(\d+)-of-(\d+)", cfg.machine.part)
    if share:
        final = final.with_name(final.name.removesuffix(cfg.machine.part))
    else:
        take_over(list(_shares(cfg)), final, partial)
    extract(
        data, sorted(manifest.splits(data)), OmegaConf.to_container(cfg.features.extractor),
        partial, final, cfg.machine.workers, cfg.corpus.get("resample", False), tuple(cfg.corpus.allow_overlap),
        cfg.corpus.on_error == "skip", cfg.features.store, share and tuple(map(int, share.groups())),
    )  # fmt: skip
