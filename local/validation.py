"""The rules of Kaldi's utils/validate_data_dir.sh, for the files that local/manifest.py writes.

- utt2spk, spk2utt and wav.scp are there and not empty; so is utt2dur, on which later stages build.
- Every file ends each line with a newline, and is sorted by its first field in byte order, each of which comes once.
- utt2spk has two fields; spk2utt says the same as utt2spk.
- text, utt2dur and segments name the utterances of utt2spk, and so does wav.scp if there are no segments.
- segments has four fields and ends after it starts; wav.scp has exactly the recordings that it names.
- No path in wav.scp starts with ~. No transcript is empty or has <s>, </s> or #0 for a word.
- utt2dur has two fields, the second above 0; spk2gender names the speakers of spk2utt, each m or f.
- phones.ctm has five fields, of utterances of utt2spk alone, sorted by these and then by time (NIST's rules of a CTM).

As with its option --no-spk-sort, utt2spk need not be sorted by speaker as well. Files that `write` makes none of
(feats.scp, cmvn.scp, reco2dur, ...) are not looked at.
"""

import hashlib
from collections.abc import Iterator
from itertools import zip_longest
from math import inf
from pathlib import Path

from local.manifest import RESERVED


def violations(directory: Path) -> Iterator[str]:
    """A line for the first violation of each rule in each file; memory does not grow with the directory."""
    for name in ("utt2spk", "spk2utt", "wav.scp", "utt2dur"):
        if not (directory / name).exists() or not (directory / name).stat().st_size:
            yield f"{directory / name}: missing or empty; prepare the directory again"
            return
    segmented = (directory / "segments").exists()
    for name in ("text", "utt2dur", "segments" if segmented else "wav.scp"):
        if (directory / name).exists():
            yield from _same_keys(directory / "utt2spk", directory / name)
    if (directory / "spk2gender").exists():
        yield from _same_keys(directory / "spk2utt", directory / "spk2gender")
    if segmented:
        yield from _recordings(directory)
    if _pairs(directory / "utt2spk", False) != _pairs(directory / "spk2utt", True):
        yield f"{directory}/spk2utt: says not the same as utt2spk; prepare the directory again"
    if (directory / "phones.ctm").exists():
        yield from _times(directory)
    for name, rule in RULES.items():
        if (directory / name).exists():
            yield from _lines(directory / name, *rule)


def _fields(path: Path) -> Iterator[list[str]]:
    """The first field of each line and what follows it."""
    with open(path, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            key, _, value = line.rstrip("\n").partition(" ")
            yield [key, value]


def _lines(path: Path, wanted: str, holds) -> Iterator[str]:
    """The first line whose key is out of order, and the first whose value is not what is `wanted`."""
    last, ordered, good = "", True, True
    with open(path, encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            key, _, value = line.partition(" ")
            if ordered and not key > last:
                ordered = False
                yield f"{path}:{number}: {key} comes after {last}, expected unique ids in byte order"
            if good and not (line.endswith("\n") and holds(value[:-1])):
                good = False
                yield f"{path}:{number}: {line.rstrip()!r}, expected <id> {wanted}; mend that line"
            last = key


def _is_duration(value: str) -> bool:
    try:
        return float(value) > 0
    except ValueError:
        return False


def _is_segment(value: str) -> bool:
    fields = value.split()
    return len(fields) == 3 and all(map(_is_duration, fields[2:])) and float(fields[2]) > float(fields[1])


RULES = {
    "utt2spk": ("<speaker>", lambda value: len(value.split()) == 1),
    "spk2utt": ("<utterance> ...", lambda value: bool(value.split())),
    "wav.scp": ("<path> without ~", lambda value: bool(value.strip()) and not value.startswith("~")),
    "utt2dur": ("<seconds above 0>", _is_duration),
    "text": ("<words>, without <s>, </s> or #0", lambda value: bool(w := value.split()) and not RESERVED & {*w}),
    "segments": ("<recording> <start> <end>", _is_segment),
    "spk2gender": ("m or f", lambda value: value in ("m", "f")),
}


def _same_keys(one: Path, other: Path) -> Iterator[str]:
    for expected, found in zip_longest(_fields(one), _fields(other), fillvalue=("nothing", "")):
        if expected[0] != found[0]:
            yield f"{other}: {found[0]} where {one.name} has {expected[0]}; expected the same ids in both"
            return


def _recordings(directory: Path) -> Iterator[str]:
    named = {value.partition(" ")[0] for _, value in _fields(directory / "segments")}
    there = {key for key, _ in _fields(directory / "wav.scp")}
    for key in sorted(named - there):
        yield f"{directory}/segments: recording {key} is not in wav.scp; add it there or remove its segments"
    for key in sorted(there - named):
        yield f"{directory}/wav.scp: no line of segments names recording {key}; remove it, or add its segments"


def _is_span(value: str) -> bool:
    try:
        channel, begin, duration, _ = value.split()
        return channel == "1" and 0 <= float(begin) < inf and 0 <= float(duration) < inf
    except ValueError:
        return False


def _times(directory: Path) -> Iterator[str]:
    """The first line of phones.ctm that is of no utterance, or out of order, or no span of time."""
    keys = (key for key, _ in _fields(directory / "utt2spk"))
    last, latest = None, 0.0
    for number, (key, value) in enumerate(_fields(directory / "phones.ctm"), 1):
        if key != last:  # looked for among those that follow, so that the order has to be the same
            last, latest = next((one for one in keys if one == key), None), 0.0
        if last is None or not _is_span(value) or float(value.split()[1]) < latest:
            wanted = "<utterance> 1 <begin> <duration> <phone>, sorted as utt2spk and by time"
            yield f"{directory}/phones.ctm:{number}: {f'{key} {value}'!r}, expected {wanted}; mend that line"
            return
        latest = float(value.split()[1])


def _pairs(path: Path, by_speaker: bool) -> tuple[int, int]:
    """How many pairs of utterance and speaker there are, and a sum over their digests: the order does not matter."""
    count = total = 0
    for key, value in _fields(path):
        for one in value.split():
            utterance, speaker = (one, key) if by_speaker else (key, one)
            count += 1
            total += int.from_bytes(hashlib.blake2b(f"{utterance} {speaker}".encode(), digest_size=8).digest())
    return count, total
