"""Which part of `train` is transcribed: nested, speaker-balanced subsets."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from local import hypotheses
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


def heard(labels: DictConfig) -> dict[str, str] | None:
    """The hypotheses by utterance that the settings `labels` name, if any; raises InputError for what are none."""
    if labels.hypotheses is None:
        return None
    if labels.hours == "all":
        raise InputError(
            f"labels.hypotheses={labels.hypotheses} is for what has no labels, and labels.hours=all leaves nothing "
            "without; give a number of hours"
        )
    path = Path(str(labels.hypotheses))
    if not path.is_file():
        raise InputError(
            f"labels.hypotheses={labels.hypotheses}: no such file; train a recognizer on the labels alone first, and "
            "let it decode train (decoder.splits=[dev,train])"
        )
    if path.suffix.lower() == ".ctm":
        raise InputError(
            f"labels.hypotheses={labels.hypotheses}: a CTM does not tell of utterances in which nothing was heard; "
            "give Kaldi's text, or a .trn"
        )
    return hypotheses.read(path)


def transcribed(
    utterances: list[Utterance], labels: DictConfig, normalize: Callable[[str], str]
) -> tuple[list[Utterance], int]:
    """What the recognizer is trained on by the settings `labels`: a subset, and the rest with its hypotheses, if any.

    That is self-training (Kahn et al. 2020, arXiv 1909.09116). Hypotheses are normalized as transcripts are; where
    nothing was heard, the utterance is left out, and counted. Raises InputError if the hypotheses lack one.
    """
    chosen, texts = subset(utterances, labels.hours, labels.seed), heard(labels)
    if texts is None:
        return chosen, 0
    known = {u.id for u in chosen}
    rest = [u for u in utterances if u.id not in known]
    if lacking := [u.id for u in rest if u.id not in texts]:
        raise InputError(
            f"labels.hypotheses={labels.hypotheses}: lacks {len(lacking)} of {len(rest)} utterances without labels, as "
            f"{lacking[0]}; expected all; decode train with the corpus as it is"
        )
    guessed = [replace(u, text=text) for u in rest if (text := normalize(texts[u.id]))]
    return sorted(chosen + guessed, key=lambda u: u.id.encode()), len(rest) - len(guessed)
