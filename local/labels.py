"""Which part of `train` is transcribed: nested, speaker-balanced subsets."""

import hashlib

from local.errors import InputError
from local.manifest import Utterance


def check_hours(setting: str, hours: float | str) -> None:
    """Raise InputError unless a setting is a number of hours, or "all"."""
    if hours != "all" and (not isinstance(hours, int | float) or not 0 < hours < float("inf")):
        raise InputError(f"{setting}={hours!r}: expected a positive number, or all")


def subset(utterances: list[Utterance], hours: float | str, seed: int) -> list[Utterance]:
    """The first `hours` of an order that takes each speaker's utterances in turn; all of them for "all".

    The order is a function of the utterances' ids and `seed` alone, so a smaller subset lies within a larger one.
    Raises InputError if there is less audio than asked for.
    """
    check_hours("hours", hours)
    if hours == "all":
        return sorted(utterances, key=lambda u: u.id.encode())
    available = sum(u.duration for u in utterances) / 3600
    if hours > available * 1.001:
        raise InputError(f"{hours} h asked for, but there are {available:.3f} h; lower labels.hours or unlabeled.hours")

    def draw(what: str) -> str:
        return hashlib.sha256(f"{seed} {what}".encode()).hexdigest()

    turns: dict[str, int] = {}
    order = []
    for utterance in sorted(utterances, key=lambda u: draw(u.id)):
        turns[utterance.speaker] = turns.get(utterance.speaker, 0) + 1
        order.append((turns[utterance.speaker], draw(utterance.speaker), utterance))
    chosen, seconds = [], 0.0
    for _, _, utterance in sorted(order, key=lambda entry: entry[:2]):
        if seconds >= hours * 3600:
            break
        chosen.append(utterance)
        seconds += utterance.duration
    return sorted(chosen, key=lambda u: u.id.encode())
