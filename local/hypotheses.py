"""Texts by utterance as any toolkit leaves them: sclite's `.trn`, CTM, or Kaldi's `text`."""

import math
import re
from pathlib import Path

from local.errors import InputError

TRN = re.compile(r"(?P<text>.*)\((?P<id>[^()\s]+)\)\s*")  # the words, then the utterance
WORD = re.compile(r"[^ \t\r\v\f]+")  # other spaces, as those that do not break a line, are letters to sclite and Kaldi
NULL = "@"  # sclite's word for none


def read(path: Path) -> dict[str, str]:
    """Utterance to text, words parted by single spaces; the suffix `.trn` or `.ctm` tells the format, else Kaldi's.

    A CTM's utterance is its file. Raises InputError for a file that is not there or of another format, naming the line,
    and for an utterance that comes twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"{path}: cannot be read ({reason}); expected a .trn, a .ctm or Kaldi's text") from None
    texts = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith(";;")]
    suffix = path.suffix.lower()
    if suffix == ".ctm":
        return _ctm(path, texts)
    if suffix != ".trn" and texts and all(TRN.fullmatch(line) for _, line in texts):
        raise InputError(f"{path}: each line ends in (utterance), as those of a .trn; give it that suffix")
    found: dict[str, str] = {}
    for number, line in texts:
        key, words = _trn(path, number, line) if suffix == ".trn" else _kaldi(line)
        if key in found:
            raise InputError(f"{path}:{number}: {key} comes twice, expected an utterance once; remove one of the two")
        found[key] = " ".join(words)
    return found


def _kaldi(line: str) -> tuple[str, list[str]]:
    key, *words = WORD.findall(line)
    return key, words


def _trn(path: Path, number: int, line: str) -> tuple[str, list[str]]:
    match = TRN.fullmatch(line)
    if match is None:
        raise InputError(f"{path}:{number}: {line[:60]!r} has no utterance, expected words and then (utterance)")
    if re.search(r"[{}]", match["text"]):
        raise InputError(f"{path}:{number}: {match['id']} has alternatives in braces, expected plain words; choose one")
    return match["id"], [word for word in WORD.findall(match["text"]) if word != NULL]


def _ctm(path: Path, lines: list[tuple[int, str]]) -> dict[str, str]:
    """Words in order of time, as lines of file, channel, begin, duration, word and perhaps confidence."""
    words: dict[str, list[tuple[float, str]]] = {}
    channels: dict[str, str] = {}
    for number, line in lines:
        try:
            key, channel, begin, duration, word, *_ = WORD.findall(line)
            begin = float(begin)
            if not math.isfinite(begin + float(duration)):
                raise ValueError
        except ValueError:
            raise InputError(
                f"{path}:{number}: {line[:60]!r} is no line of a CTM, expected file, channel, begin, duration and word"
            ) from None
        if channels.setdefault(key, channel) != channel:
            raise InputError(
                f"{path}:{number}: {key} has channels {channels[key]} and {channel}; compare one at a time"
            )
        words.setdefault(key, []).append((begin, word))
    return {key: " ".join(word for _, word in sorted(each, key=lambda pair: pair[0])) for key, each in words.items()}
