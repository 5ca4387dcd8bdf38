"""Checkpoints that rebuild themselves: plain settings and tensors, read with `weights_only=True`."""

import io
from pathlib import Path

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from local.config import make_of
from local.errors import InputError
from local.marker import replace_by

BEFORE = "before.ckpt"  # the last checkpoint but one of a training


def build(settings: dict, **more):
    """Instantiate a module from settings with a `_target_` of ours; keys that its class does not take are an error."""
    if "_target_" not in settings:
        raise InputError(f"{settings['name']}: this arm needs a model, and {settings['name']} is none; choose another")
    return make_of("lightning_modules", settings, **more)


def write(path: Path, content: dict) -> None:
    """Replace `path` in one step; a full disk is an OSError, which torch.save does not make of it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    replace_by(path, path.with_name(path.name + ".tmp"), buffer.getbuffer())


class WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoints, written by `write`: its own way passes through another file system, which may cut."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options: object = None) -> None:
        """Write a checkpoint."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(new := path.with_suffix(".new"), checkpoint)
        if path.name == "last.ckpt" and path.exists():
            path.replace(path.with_name(BEFORE))
        new.replace(path)


def save(path: Path, module: torch.nn.Module, settings: dict, features: str, **more) -> None:
    """Write `module`, the settings that `build` it, the signed name of the features it was trained on, and `more`."""
    write(path, {"settings": settings, "state": module.state_dict(), "features": features} | more)


def read(path: Path) -> dict:
    """What `save` wrote; raises InputError if the file is cut."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a cut file
        raise InputError(f"{path}: no readable checkpoint ({type(error).__name__}); run its stage again") from None


def restored(settings: dict, state: dict) -> torch.nn.Module:
    """The module of a checkpoint, in evaluation mode on the CPU."""
    module = build(settings)
    module.load_state_dict(state)
    return module.eval()


def load(path: Path, features: str, asked: dict | None = None) -> tuple[torch.nn.Module, dict]:
    """A module, in evaluation mode on the CPU, and its settings, which are to agree with those that are `asked` for.

    Raises InputError if the file is cut, or was trained on other features or is of another architecture.
    """
    checkpoint = read(path)
    if lacking := [key for key in ("settings", "state", "features") if key not in checkpoint]:
        raise InputError(f"{path}: has no {lacking[0]}, so it is no checkpoint of ours; run its stage again")
    if checkpoint["features"] != features:
        raise InputError(
            f"{path}: trained on features {checkpoint['features']}, but given {features}; "
            "train on these features, or name the archive of those"
        )
    found = checkpoint["settings"]
    for key, value in sorted((asked or {}).items()):  # the class first
        if found.get(key) != value:
            raise InputError(
                f"{path}: made with {key}={found.get(key)}, but {key}={value} is asked for, so it is of another "
                "training; remove its folder, and run its stage again"
            )
    try:
        return restored(found, checkpoint["state"]), found
    except RuntimeError:  # torch's, with a line for each tensor
        raise InputError(f"{path}: its weights are not those of its settings; run its stage again") from None
