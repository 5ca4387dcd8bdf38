"""The leak audit: what splits and the text of language models share, which a word error rate must not profit from.

What touches dev or test is an error, unless `corpus.allow_overlap` names it, such as `dev-test-sentences`; books are a
warning, for the words of another chapter are others. `pretrain` may contain `train`.
"""

import difflib
import gzip
import hashlib
import logging
import tempfile
import zlib
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from local.audio import sixteen_bit
from local.errors import InputError
from local.ledger import Ledger
from local.manifest import Utterance, held_out, ordered, rows, splits

log = logging.getLogger(__name__)

# What is compared, and the value of an utterance that tells it. Audio of unknown digest is told by its file; parts of
# one recording are told to be of one session, and not before stage 2 to be the same.
FILE = "coalesce(nullif(digest, ''), audio)"
KINDS = {
    "ids": "id", "speakers": "speaker", "books": "book", "sentences": "coalesce(nullif(sentence, ''), text)",
    "sessions": f"coalesce(nullif(session, ''), CASE recording WHEN '' THEN '' ELSE {FILE} END)",
    "audio": f"CASE recording WHEN '' THEN {FILE} ELSE '' END",
}  # fmt: skip


def pairs(splits: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """What is compared with what."""
    return tuple(combinations(splits, 2))


def lm_pairs(splits: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The same, of the text of a language model."""
    return tuple(("lm", split) for split in splits)


def digest(samples: np.ndarray) -> str:
    """The MD5 that FLAC's header has for these samples [N] in [-1, 1], as 16-bit audio decodes to."""
    return hashlib.md5(sixteen_bit(samples).tobytes()).hexdigest()


def shared(ledger: Ledger, kinds: tuple[str, ...] = tuple(KINDS)) -> dict[str, dict[tuple[str, str], tuple]]:
    """By kind and pair of splits: how many values both have, and one of them; no entry where one split knows none."""
    found, masks = {}, ledger.masks
    for kind in kinds:
        sets = list(ledger.sharing(KINDS[kind]))
        known = {split for split, mask in masks.items() if any(mask & splits for splits, _, _ in sets)}
        found[kind] = {}
        for a, b in pairs(tuple(masks)):
            if {a, b} <= known:
                both = [(n, value) for splits, n, value in sets if splits & masks[a] and splits & masks[b]]
                example = min((value for _, value in both), default="")
                if example and kind in ("sessions", "audio"):  # ids say more than a digest
                    example = ledger.holders(KINDS[kind], example)
                found[kind][a, b] = (sum(n for n, _ in both), example)
    return found


def check_allowed(allowed: list[str], splits: tuple[str, ...]) -> None:
    """Raise InputError for an entry of `corpus.allow_overlap` that names no overlap."""
    possible = [(kind, pair) for kind in KINDS for pair in pairs(splits)]
    possible += [("sentences", pair) for pair in lm_pairs(splits)]
    names = [_name(kind, pair) for kind, pair in possible if any(map(held_out, pair))]
    for name in allowed:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1, 0)[0]
            raise InputError(f"corpus.allow_overlap: {name!r} is no overlap that is refused; the nearest is {near!r}")


def leaks(found: dict, allowed: list[str]) -> list[str]:
    """A line for each overlap that touches dev or test and is not allowed; a warning in the log for books."""
    errors = []
    for kind, overlaps in found.items():
        for pair, (count, example) in overlaps.items():
            if count and any(map(held_out, pair)) and _name(kind, pair) not in allowed:
                line = f"{' and '.join(pair)} share {_counted(count, kind)}, such as {example}; "
                if kind == "books":
                    log.warning("%sother words, but one style", line)
                else:
                    errors.append(
                        f"{line}what is measured on must be in no other split: take it out, "
                        f"or if that is meant, set corpus.allow_overlap=[{_name(kind, pair)}]"
                    )
    return errors


def audio_leaks(directories: dict[str, list[Path]], allowed: list[str], scratch: Path) -> list[str]:
    """As `leaks`, for the samples alone: what `audio_digest` (<utterance> <MD5>) in each split's directories tells.

    For stage 2, which digests what has no digest in its header. `scratch` is a file for the time of the comparison.
    """
    with Ledger(scratch, ordered(directories)) as ledger:
        for split, places in directories.items():
            for path in (place / "audio_digest" for place in places):
                for _, key, value in rows(path) if path.exists() else ():
                    ledger.add(split, Utterance(key, "", "", 0.0), digest=value)
        return leaks(shared(ledger, ("audio",)), allowed)


def check_unlabeled(cfg: DictConfig) -> None:
    """Raise InputError if another corpus, on which an arm is pretrained, has audio that this one measures errors on.

    A corpus was compared with itself in stage 2.
    """
    unlabeled, data, features = (Path(cfg.dirs[key]) for key in ("unlabeled", "data", "features"))
    if unlabeled == features:
        return
    split = cfg.unlabeled.split
    places = {name: [data / name, features / name] for name in splits(data) if held_out(name)}
    places["pretrain"] = [unlabeled.parent / split, unlabeled / split]
    with tempfile.TemporaryDirectory() as scratch:
        errors = audio_leaks(places, cfg.corpus.allow_overlap, Path(scratch) / "ledger")
    if errors:
        raise InputError("\n".join(f"unlabeled.features={unlabeled}: {line}" for line in errors))


def sentences_of(text: str, setting: str = "lm.text") -> Iterator[str]:
    """The lines of a language model's text, plain or gzip; raises InputError if it cannot be read."""
    path = Path(str(text))  # which a number is no name of, to Python
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            yield from lines
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(
            f"{setting}={text}: cannot be read as text ({error}); name a UTF-8 file, plain or .gz"
        ) from None


def shared_with_text(
    text: str, data: Path, normalize: Callable[[str], str], allowed: list[str]
) -> dict[str, dict[tuple[str, str], tuple]]:
    """As `shared`, for the sentences of a language model's text: one a line, plain or gzip.

    It is normalized as the transcripts were. In memory are the sentences of the data directories alone. Raises
    InputError if the text cannot be read, and for what `leaks` finds.
    """
    wanted: dict[str, set[str]] = {}
    for split in splits(data):
        if (data / split / "text").exists():
            wanted[split] = {sentence for _, _, sentence in rows(data / split / "text")}
    found = {split: set() for split in wanted}
    for sentence in map(normalize, sentences_of(text)):
        for split, sentences in wanted.items():
            if sentence in sentences:
                found[split].add(sentence)
    overlaps = {"sentences": {("lm", split): (len(both), min(both, default="")) for split, both in found.items()}}
    if errors := leaks(overlaps, allowed):
        raise InputError("\n".join(errors))
    return overlaps


def tell_left_out(split: str, count: int, record: Path) -> None:
    """Log that a split goes without `count` utterances, and where that is recorded; of dev and test as a warning."""
    log.log(
        logging.WARNING if held_out(split) else logging.INFO,
        "%s: %d utterances are left out, for corpus.on_error=skip: %s says which and why", split, count, record,
    )  # fmt: skip


def _name(kind: str, pair: tuple[str, str]) -> str:
    return f"{pair[0]}-{pair[1]}-{kind}"


def _counted(count: int, kind: str) -> str:
    return f"{count} {kind if count > 1 or kind == 'audio' else kind[:-1]}"


def cell(found: dict, kind: str, pair: tuple[str, str], allowed: list[str]) -> str:
    """What the table says: how many are shared, `?` where it cannot be known."""
    count, _ = found[kind].get(pair, (None, ""))
    if count is None:
        return "?"
    return f"{count:,}" + " allowed" * bool(count and _name(kind, pair) in allowed)
