"""One file a corpus."""

from collections.abc import Callable
from functools import partial

from hydra.utils import get_class
from omegaconf import OmegaConf

from local import manifest
from local.config import make
from local.errors import InputError

# Settings of every corpus that stage 1 looks at, and no corpus does.
CHECKS = ("on_error", "allow_overlap", "min_duration", "max_duration")


def opened(cfg):
    """The corpus that is configured."""
    settings = OmegaConf.to_container(cfg.corpus, resolve=True)
    return make({key: value for key, value in settings.items() if key not in CHECKS})


def splits(cfg) -> tuple[str, ...]:
    """Those of the configured corpus, in their order."""
    return manifest.ordered(cfg.corpus.get("splits", ()))


def check_splits(cfg) -> None:
    """Raise InputError if a split is to be decoded that the corpus has not."""
    if unknown := [split for split in cfg.decoder.splits or () if split not in splits(cfg)]:
        raise InputError(f"decoder.splits: {unknown[0]} is no split of this corpus; expected {', '.join(splits(cfg))}")


def normalizer(cfg) -> Callable[[str], str]:
    """How the configured corpus normalizes text: transcripts, the text of language models, and hypotheses alike.

    It looks at settings alone, so the corpus itself need not be there.
    """
    return partial(get_class(cfg.corpus._target_).normalize, cfg.corpus)


def listed(names: str | list[str]) -> list[str]:
    """The folders of a split, which may be one word."""
    return [names] if isinstance(names, str) else names


def upper_case(text: str) -> str:
    """`text` in upper case, with single spaces between its words: how the corpora that have words normalize it."""
    return " ".join(text.upper().split())
