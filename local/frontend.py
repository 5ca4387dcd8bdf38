"""What the recognizer of an arm reads from disk, and what it carries along."""

from pathlib import Path

from omegaconf import DictConfig

from local.config import digest_of
from local.errors import InputError
from local.marker import read_marker


def features_of(directory: str | Path) -> str:
    """Which features a directory of stage 2 holds: the name that it has where it stores frames alone.

    Audio stored beside them changes no frame: what was pretrained without it serves where waveforms are augmented.
    """
    features = read_marker(directory)["config"]["features"]
    return f"{features['name']}-{digest_of({'features': features | {'store': 'frames'}})}"


def source(cfg: DictConfig) -> tuple[Path, str]:
    """The archive directory, and the normalization it is read with."""
    if cfg.recognizer.frontend not in ("frozen", "finetuned"):
        raise InputError(f"recognizer.frontend={cfg.recognizer.frontend!r}; expected frozen or finetuned")
    if cfg.recognizer.frontend == "finetuned" or cfg.dirs.frontend == cfg.dirs.features:
        return Path(cfg.dirs.features), cfg.features.cmvn
    return Path(cfg.dirs.frontend), "global"


def autoencoder_path(cfg: DictConfig) -> Path:
    """Where stage 3 leaves an arm's autoencoder."""
    return Path(cfg.dirs.pretrain) / "autoencoder.pt"


def checkpoint_path(cfg: DictConfig) -> Path | None:
    """The pretrained autoencoder whose encoder is fine-tuned with the recognizer, if the arm has one."""
    if cfg.recognizer.frontend != "finetuned":
        return None
    if cfg.dirs.pretrain is None:
        raise InputError(f"recognizer.frontend=finetuned: arm {cfg.arm.name} has no encoder to fine-tune; use frozen")
    if "trained" not in cfg.autoencoder:
        raise InputError(f"recognizer.frontend=finetuned: {cfg.autoencoder.name} learns by no gradients; use frozen")
    return autoencoder_path(cfg)
