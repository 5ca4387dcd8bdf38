"""What a training's `augmentation` asks for: checked before it begins, counted with, and named in the results."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from local import audio
from local.config import plain
from local.errors import InputError
from local.frontend import source

log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".sph", ".w64", ".caf")
ROOM = 10  # seconds, the longest room impulse response
NAMES = {"noises": "noise", "rooms": "reverberation"}


def asked(cfg: DictConfig, training: str) -> dict | None:
    """The settings of `recognizer` or `autoencoder` by which waveforms change in training.

    None if nothing changes them, as where there is no training, or the recognizer reads a frozen bottleneck.
    """
    model = plain(cfg, training)
    settings = model.get("augmentation")
    if not settings or not (settings["speeds"] != [1] or settings["noises"] or settings["rooms"]):
        return None
    frozen = training == "recognizer" and source(cfg)[0] != Path(cfg.dirs.features)
    return settings if model.get("trained", True) and not frozen else None


def check(cfg: DictConfig, training: str) -> None:
    """Raise InputError, with a line for each, for settings of `recognizer` or `autoencoder` that cannot be met."""
    where = f"{training}.augmentation"
    errors = [f"{where}.{error}" for error in _wrong(plain(cfg, training).get("augmentation"))]
    settings = None if errors else asked(cfg, training)
    if settings and cfg.features.store != "audio":
        errors.append(f"{where} changes waveforms, and features.store=frames keeps none; set features.store=audio")
    for key in NAMES if settings else ():
        if settings[key] and not recordings(settings[key]):
            found = "a folder without audio" if Path(settings[key]).is_dir() else "no folder"
            errors.append(f"{where}.{key}={settings[key]}: {found}; expected files of {' '.join(SUFFIXES)} in it")
    if errors:
        raise InputError("\n".join(errors))


def _wrong(settings: dict | None) -> Iterator[str]:
    if settings is None:
        return
    speeds, snr, share = (settings[key] for key in ("speeds", "snr", "share"))
    if not (_numbers(speeds, 0.5, 2) and speeds):
        yield f"speeds={speeds}; expected factors from 0.5 to 2, such as [0.9,1.0,1.1]"
    if not (_numbers(snr, -100, 100) and len(snr) == 2 and snr[0] <= snr[1]):
        yield f"snr={snr}; expected the lowest and the highest in dB, such as [5,20]"
    for key in NAMES:
        if settings[key] and not isinstance(settings[key], str):
            yield f"{key}={settings[key]}; expected the name of a folder"
    if not _numbers([share], 0, 1):
        yield f"share={share}; expected a number from 0 to 1"


def _numbers(values, low: float, high: float) -> bool:
    return isinstance(values, list) and all(isinstance(value, int | float) and low <= value <= high for value in values)


def recordings(folder: str) -> list[Path]:
    """The audio files anywhere below a folder, sorted."""
    return sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def files(settings: dict | None) -> list[str]:
    """The files that a training reads by these settings."""
    folders = [settings[key] for key in NAMES if settings[key]] if settings else []
    return [str(path) for folder in folders for path in recordings(folder)]


def load(folder: str, sample_rate: int, longest: float = float("inf")) -> list[np.ndarray]:
    """The samples [N] of a folder's recordings, int16, each scaled to use all of it; other rates are resampled.

    Raises InputError with a line for each that is not mono, does not decode, holds no sound or lasts more than
    `longest` seconds.
    """
    found, errors, seconds = [], [], 0.0
    for path in recordings(folder):
        try:
            samples = audio.read(path, sample_rate, resample=True)
        except InputError as error:
            errors.append(str(error))
            continue
        peak, duration = np.abs(samples).max(initial=0), len(samples) / sample_rate
        if not 0 < peak < np.inf:
            errors.append(f"{path}: its highest sample is {peak}, expected sound; restore or remove it")
        elif duration > longest:
            errors.append(f"{path}: {duration:.1f} s, expected an impulse response of at most {longest} s; remove it")
        else:
            found.append(np.rint(samples * (32767 / peak)).astype(np.int16))
            seconds += duration
    if errors:
        raise InputError("\n".join(errors))
    log.info("%s: %d recordings, %.2f h", folder, len(found), seconds / 3600)
    return found


def fewest(frames: list[int], settings: dict) -> list[int]:
    """How many of each utterance's `frames` are left, at least, at the fastest speed, or its own."""
    fastest = max(1, *settings["speeds"])
    return [1 + int((count - 1) / fastest) for count in frames]


def policy(cfg: DictConfig) -> str:
    """What a recognizer's training was given, such as `speed 0.9-1.1, noise, SpecAugment`, and its pretraining."""
    masks = ["SpecAugment"] * bool(cfg.recognizer.time_mask or cfg.recognizer.band)
    found = ", ".join([*_names(asked(cfg, "recognizer")), *masks]) or "none"
    pretraining = ", ".join(_names(asked(cfg, "autoencoder")))
    return f"{found}; in pretraining {pretraining}" if pretraining else found


def _names(settings: dict | None) -> list[str]:
    if settings is None:
        return []
    slowest, fastest = (choose(settings["speeds"]) for choose in (min, max))
    speed = f"speed {slowest:g}" + f"-{fastest:g}" * (slowest < fastest)
    return [speed] * (settings["speeds"] != [1]) + [name for key, name in NAMES.items() if settings[key]]
