"""Texts by utterance as any toolkit leaves them: sclite's `.trn`, CTM, or Kaldi's `text`."""

import re
from pathlib import Path

from local.errors import InputError

TRN = re.compile(r"(?P<text>.*)\((?P<id>[^()\s]+)\)\s*")  # the words, then the utterance


def read(path: Path) -> dict[str, str]:
    """Utterance to text, words parted by single spaces; the suffix `.trn` or `.ctm` tells the format, else Kaldi's.

    A CTM's utterance is its file. Raises InputError for a file that is not there or of another format, naming the line,
    and for an utterance that comes twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"{path}: cannot be read ({reason}); expected a .trn, a .ctm or Kaldi's text") from None
    texts = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith(";;")]
    if path.suffix == ".ctm":
        return _ctm(path, texts)
    found: dict[str, str] = {}
    for number, line in texts:
        key, text = _trn(path, number, line) if path.suffix == ".trn" else _kaldi(line)
        if key in found:
            raise InputError(f"{path}:{number}: {key} comes twice, expected an utterance once; remove one of the two")
        found[key] = " ".join(text.split())
    return found


def _kaldi(line: str) -> tuple[str, str]:
    key, *text = line.split(maxsplit=1)
    return key, "".join(text)


def _trn(path: Path, number: int, line: str) -> tuple[str, str]:
    match = TRN.fullmatch(line)
    if match is None:
        raise InputError(f"{path}:{number}: {line[:60]!r} has no utterance, expected words and then (utterance)")
    if re.search(r"[{}]", match["text"]):
        raise InputError(f"{path}:{number}: {match['id']} has alternatives in braces, expected plain words; choose one")
    return match["id"], match["text"]


def _ctm(path: Path, lines: list[tuple[int, str]]) -> dict[str, str]:
    """Words in order of time, as lines of file, channel, begin, duration, word and perhaps confidence."""
    words: dict[str, list[tuple[float, str]]] = {}
    channels: dict[str, str] = {}
    for number, line in lines:
        fields = line.split()
        try:
            key, channel, begin, _, word = fields[0], fields[1], float(fields[2]), float(fields[3]), fields[4]
        except (IndexError, ValueError):
            raise InputError(
                f"{path}:{number}: {line[:60]!r} is no line of a CTM, expected file, channel, begin, duration and word"
            ) from None
        if channels.setdefault(key, channel) != channel:
            raise InputError(
                f"{path}:{number}: {key} has channels {channels[key]} and {channel}; compare one at a time"
            )
        words.setdefault(key, []).append((begin, word))
    return {key: " ".join(word for _, word in sorted(each, key=lambda pair: pair[0])) for key, each in words.items()}
