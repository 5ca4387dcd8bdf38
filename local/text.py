"""Transcripts and the units that CTC emits."""

from local.errors import InputError
from local.manifest import Utterance


def encode_all(utterances: list[Utterance], units: str) -> list[list[int]]:
    """Indices of each transcript's characters in `units`, from 1, for 0 is the blank.

    Raises InputError with a line for each utterance that has another character.
    """
    outside = {u.id: sorted(set(u.text) - set(units)) for u in utterances}
    bad = [
        f"{key}: {' '.join(map(repr, characters))} in its transcript, expected only units.inventory={units!r}; "
        "normalize the text or extend the inventory"
        for key, characters in outside.items()
        if characters
    ]
    if bad:
        raise InputError("\n".join(bad))
    return [[units.index(character) + 1 for character in u.text] for u in utterances]


def feasible(labels: list[int], frames: int) -> bool:
    """Whether CTC can align the labels: a frame each, and a blank between equal neighbors."""
    return frames >= len(labels) + sum(a == b for a, b in zip(labels, labels[1:], strict=False))
