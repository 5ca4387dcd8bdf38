"""One file a corpus."""

from omegaconf import OmegaConf

from local.config import make

# Settings of every corpus that stage 1 looks at, and no corpus does.
CHECKS = ("on_error", "allow_overlap", "min_duration", "max_duration")


def opened(cfg):
    """The corpus that is configured."""
    settings = OmegaConf.to_container(cfg.corpus, resolve=True)
    return make({key: value for key, value in settings.items() if key not in CHECKS})
