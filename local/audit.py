"""The leak audit: what pretrain, train, dev and test share, which a word error rate must not profit from.

What touches dev or test is an error, unless `corpus.allow_overlap` names it, such as `dev-test-sentences`; books are a
warning, for the words of another chapter are others. `pretrain` may contain `train`.
"""

import difflib
import hashlib
import logging
from itertools import combinations
from pathlib import Path

import numpy as np
import soundfile

from local.errors import InputError
from local.ledger import MASKS, Ledger
from local.manifest import SPLITS, Utterance

log = logging.getLogger(__name__)

# What is compared, and the value of an utterance that tells it. Audio of unknown digest is told by its file.
KINDS = {
    "ids": "id", "speakers": "speaker", "sessions": "session", "books": "book", "sentences": "text",
    "audio": "coalesce(nullif(digest, ''), audio)",
}  # fmt: skip
PAIRS = tuple(combinations(SPLITS, 2))
HELD_OUT = {"dev", "test"}


def flac_header(path: str | Path) -> tuple[int, str]:
    """Sample rate in Hz and MD5 of the samples by the STREAMINFO block of a FLAC file (RFC 9639, section 8.2).

    (0, "") for other files, and an empty digest where the encoder left it out. Raises OSError.
    """
    with open(path, "rb", buffering=0) as file:
        head = file.read(42)
    if len(head) < 42 or head[:4] != b"fLaC":
        return 0, ""
    return int.from_bytes(head[18:21]) >> 4, head[26:].hex() if any(head[26:]) else ""


def header(path: str) -> tuple[int, str]:
    """Sample rate in Hz, and the digest if the file is FLAC; raises InputError if the file is missing or unreadable."""
    try:
        rate, md5 = flac_header(path)
        return rate or soundfile.info(path).samplerate, md5
    except (soundfile.LibsndfileError, OSError) as error:
        found = "the file is missing" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(f"{path}: unreadable audio ({found}); restore or remove it") from None


def digest(samples: np.ndarray) -> str:
    """The MD5 that FLAC's header has for these samples [N] in [-1, 1], as 16-bit audio decodes to."""
    whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")
    return hashlib.md5(whole.tobytes()).hexdigest()


def shared(ledger: Ledger, kinds: tuple[str, ...] = tuple(KINDS)) -> dict[str, dict[tuple[str, str], tuple]]:
    """By kind and pair of splits: how many values both have, and one of them; no entry where one split knows none."""
    found = {}
    for kind in kinds:
        sets = list(ledger.sharing(KINDS[kind]))
        known = {split for split, mask in MASKS.items() if any(mask & splits for splits, _, _ in sets)}
        found[kind] = {}
        for a, b in PAIRS:
            if {a, b} <= known:
                both = [(n, value) for splits, n, value in sets if splits & MASKS[a] and splits & MASKS[b]]
                example = min((value for _, value in both), default="")
                if example and kind == "audio":  # ids say more than a digest
                    example = ledger.holders(KINDS[kind], example)
                found[kind][a, b] = (sum(n for n, _ in both), example)
    return found


def check_allowed(allowed: list[str]) -> None:
    """Raise InputError for an entry of `corpus.allow_overlap` that names no overlap."""
    names = [_name(kind, pair) for kind in KINDS for pair in PAIRS if HELD_OUT & {*pair}]
    for name in allowed:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1, 0)[0]
            raise InputError(f"corpus.allow_overlap: {name!r} is no overlap that is refused; the nearest is {near!r}")


def leaks(found: dict, allowed: list[str]) -> list[str]:
    """A line for each overlap that touches dev or test and is not allowed; a warning in the log for books."""
    errors = []
    for kind, pairs in found.items():
        for pair, (count, example) in pairs.items():
            if count and HELD_OUT & {*pair} and _name(kind, pair) not in allowed:
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
    with Ledger(scratch) as ledger:
        for split, places in directories.items():
            for path in (place / "audio_digest" for place in places):
                if path.exists():
                    with open(path, encoding="utf-8") as lines:
                        for line in lines:
                            key, _, value = line.strip().partition(" ")
                            ledger.add(split, Utterance(key, "", "", 0.0), digest=value)
        return leaks(shared(ledger, ("audio",)), allowed)


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
