"""Checkpoints that rebuild themselves: plain settings and tensors, read with `weights_only=True`."""

from pathlib import Path

import torch

from local.config import make
from local.errors import InputError

TRUSTED = ("lightning_modules.",)  # classes that a checkpoint or a configuration may name


def build(settings: dict, **more):
    """Instantiate a module from settings with a `_target_` of ours; keys that its class does not take are an error."""
    if "_target_" not in settings:
        raise InputError(f"{settings['name']}: this arm needs a model, and {settings['name']} is none; choose another")
    if not settings["_target_"].startswith(TRUSTED):
        raise InputError(f"{settings['_target_']}: no class of lightning_modules; such a checkpoint is not loaded")
    return make(settings, **more)


def save(path: Path, module: torch.nn.Module, settings: dict, features: str) -> None:
    """Write `module`, the settings that `build` it, and the signed name of the features it was trained on."""
    torch.save({"settings": settings, "state": module.state_dict(), "features": features}, path)


def load(path: Path, features: str) -> tuple[torch.nn.Module, dict]:
    """A module, in evaluation mode on the CPU, and its settings.

    Raises InputError if the file is cut or was trained on other features.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a cut file
        raise InputError(f"{path}: no readable checkpoint ({type(error).__name__}); run its stage again") from None
    if checkpoint["features"] != features:
        raise InputError(
            f"{path}: trained on features {checkpoint['features']}, but given {features}; "
            "train on these features, or name the archive of those"
        )
    module = build(checkpoint["settings"])
    module.load_state_dict(checkpoint["state"])
    return module.eval(), checkpoint["settings"]
