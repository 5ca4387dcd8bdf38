"""Transcripts and the units that CTC emits: characters, word pieces, or symbols with spaces between them, as phones."""

from local import pieces
from local.errors import InputError
from local.manifest import Utterance


def check_units(units: dict) -> None:
    """Raise InputError unless the settings `units` name units, each once, and say what is folded and scored alike."""
    inventory = units.get("inventory")
    listed = isinstance(inventory, list) and all(isinstance(unit, str) and unit for unit in inventory)
    if not inventory or not (listed or isinstance(inventory, str)):
        raise InputError(f"units.inventory={inventory!r}: expected a string of characters, or a list of symbols")
    if twice := [unit for unit in inventory if inventory.count(unit) > 1]:
        raise InputError(f"units.inventory has {twice[0]!r} twice, expected each once; leave one out")
    for name in ("folding", "scoring"):
        if not isinstance(units.get(name), dict):
            raise InputError(f"units.{name}={units.get(name)}: expected a symbol for each that is replaced, or {{}}")


def fold(text: str, folding: dict[str, str]) -> str:
    """Each symbol of `text` replaced by what `folding` has for it, or left out if that is empty."""
    return " ".join(folding.get(symbol, symbol) for symbol in text.split() if folding.get(symbol, symbol))


def encode_all(utterances: list[Utterance], units: str | list[str], folding: dict[str, str]) -> list[list[int]]:
    """Indices of each transcript's units in `units`, from 1, for 0 is the blank; `folding` comes first.

    The units are the characters of a string, the word pieces of a list in which some begin a word (local/pieces.py), or
    the symbols of a list. Raises InputError with a line for each utterance that has another.
    """
    index = {unit: number for number, unit in enumerate(units, 1)}
    texts = {u.id: _symbols(u.text, units, folding) for u in utterances}
    outside = {key: sorted(set(text) - index.keys()) for key, text in texts.items()}
    bad = [
        f"{key}: {' '.join(map(repr, others))} in its transcript, expected only units.inventory={units!r}; "
        "normalize the text, extend the inventory or choose other units"
        for key, others in outside.items()
        if others
    ]
    if bad:
        raise InputError("\n".join(bad))
    return [[index[unit] for unit in text] for text in texts.values()]


def encode(text: str, units: str | list[str]) -> list[int]:
    """Indices in `units`, from 1, of a text that `decode` gave."""
    return [1 + units.index(symbol) for symbol in _symbols(text, units, {})]


def words(labels: list[int], units: str | list[str]) -> list[list[int]]:
    """For each word of the text that `decode` gives, the places of its units in `labels`."""
    symbols = [units[label - 1] for label in labels]
    alone = not isinstance(units, str) and not _in_pieces(units)  # each symbol is a word
    found: list[list[int]] = [[]]
    for place, symbol in enumerate(symbols):
        if alone or symbol == " " or symbol.startswith(pieces.MARK):
            found.append([])
        if symbol != " ":
            found[-1].append(place)
    return [places for places in found if decode([labels[place] for place in places], units)]


def _symbols(text: str, units: str | list[str], folding: dict[str, str]) -> list[str]:
    if isinstance(units, str):
        return list(text)
    return pieces.segmented(text, units) if _in_pieces(units) else fold(text, folding).split()


def _in_pieces(units: str | list[str]) -> bool:
    return any(unit.startswith(pieces.MARK) for unit in units)


def decode(labels: list[int], units: str | list[str]) -> str:
    """The text of indices in `units`, from 1; spaces between words are single."""
    symbols = [units[label - 1] for label in labels]
    if _in_pieces(units):
        return pieces.joined(symbols)
    return " ".join("".join(symbols).split()) if isinstance(units, str) else " ".join(symbols)


def feasible(labels: list[int], frames: int) -> bool:
    """Whether CTC can align the labels: a frame each, and a blank between equal neighbors."""
    return frames >= len(labels) + sum(a == b for a, b in zip(labels, labels[1:], strict=False))


def aligned(labels: list[list[int]], frames: list[int], stride: int) -> list[int]:
    """Which utterances CTC can align if a recognizer takes `stride` of their frames to one."""
    return [
        i for i, (row, length) in enumerate(zip(labels, frames, strict=True)) if feasible(row, -(-length // stride))
    ]


def feasibility(labels: list[list[int]], frames: list[int], input_stride: int) -> str:
    """How many utterances CTC cannot align at usual total strides, of frames that stand for `input_stride` already."""
    strides = [stride for stride in (1, 2, 4, 8) if stride >= input_stride]
    counts = (len(labels) - len(aligned(labels, frames, stride // input_stride)) for stride in strides)
    found = ", ".join(f"{count} at stride {stride}" for stride, count in zip(strides, counts, strict=True))
    return f"of {len(labels)} utterances CTC cannot align {found}"
