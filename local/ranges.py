"""What numbers the settings of trainings and decoders may be: looked at before the first training begins.

A setting that is null is none. One that is not named here, as of an autoencoder of your own, is its class's to check.
"""

import math
from collections.abc import Iterator

from omegaconf import DictConfig

from local.config import plain
from local.errors import InputError

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
KINDS = {  # what is expected, and whether a number is that
    "a whole number, 1 or more": lambda x: type(x) is int and x >= 1,
    "a whole number, 2 or more": lambda x: type(x) is int and x >= 2,
    "a whole number, 0 or more": lambda x: type(x) is int and x >= 0,
    "a number above 0": lambda x: x > 0,
    "a number, 0 or more": lambda x: x >= 0,
    "a share, from 0 to 1": lambda x: 0 <= x <= 1,
    "a share, 0 or more and below 1": lambda x: 0 <= x < 1,
}
COUNT, SEVERAL, WHOLE, POSITIVE, WEIGHT, SHARE, PART = KINDS
BOTH = {
    "updates": WHOLE, "check_every": COUNT, "learning_rate": WEIGHT, "warmup": SHARE, "batch_seconds": POSITIVE,
    "crop_seconds": POSITIVE, "average": PART, "width": COUNT, "stride": COUNT, "span": COUNT, "layers": COUNT,
    "encoder.width": COUNT, "encoder.layers": COUNT, "encoder.heads": COUNT, "encoder.feedforward": COUNT,
    "encoder.kernel": COUNT, "encoder.dropout": PART,
}  # fmt: skip
RANGES = {
    "autoencoder": BOTH | {
        "bottleneck": COUNT, "decoder_width": COUNT, "widths": COUNT, "context": WHOLE, "strides": COUNT, "band": WHOLE,
        "masked": PART, "visible": WEIGHT, "noise": WEIGHT, "drop": PART, "clusters": SEVERAL, "weight": WEIGHT,
        "codes": SEVERAL, "start": PART, "commitment": WEIGHT, "decay": PART, "dead": PART, "kl": WEIGHT,
        "kl_warmup": SHARE, "free_bits": WEIGHT, "shift": COUNT, "frame_shift": POSITIVE,
    },
    "recognizer": BOTH | {
        "frontend_rate": WEIGHT, "layer_decay": POSITIVE, "thaw": SHARE, "time_mask": PART, "band": SHARE,
    },
    "decoder": {"beam": COUNT, "tokens": COUNT, "threshold": POSITIVE, "token_threshold": POSITIVE},
}  # fmt: skip


def check(cfg: DictConfig, group: str) -> None:
    """Raise InputError, a line for each, for settings of a group of RANGES that are out of their range."""
    settings = _flat(plain(cfg, group), "")
    errors = [
        f"{group}.{name}={value}: expected {kind}"
        for name, value in settings
        if (kind := RANGES[group].get(name)) and not all(map(KINDS[kind], _numbers(value)))
    ]
    precision = dict(settings).get("precision", PRECISIONS[0])
    if precision not in PRECISIONS:
        errors.append(f"{group}.precision={precision}: expected one of {', '.join(PRECISIONS)}")
    if errors:
        raise InputError("\n".join(errors))


def _flat(settings: dict, prefix: str) -> list[tuple[str, object]]:
    """Dotted names and values."""
    found = []
    for key, value in settings.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def _numbers(value: object) -> Iterator[float]:
    """A number, or those of a list that has some; what is no finite number counts as one that is in no range."""
    for one in value if isinstance(value, list) else [value]:
        number = isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
        yield one if number else math.nan
