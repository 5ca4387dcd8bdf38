"""Kaldi data directories: the only contract between corpus code and everything after it.

    wav.scp   <utterance> <path>          text      <utterance> <words>
    utt2spk   <utterance> <speaker>       spk2utt   <speaker> <utterance> ...
    utt2dur   <utterance> <seconds>       spk2gender <speaker> m|f   (optional)

Every file is UTF-8 and sorted by its first field in byte order.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from local.errors import InputError

SAFE_ID = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Utterance:
    """One utterance: `duration` in seconds, from the audio's header; `text` normalized, empty if unknown."""

    id: str
    speaker: str
    audio: str
    duration: float
    text: str = ""
    gender: str = ""


def problems(utterances: Iterable[Utterance], min_duration: float, labeled: bool) -> Iterator[str]:
    """One line for each rule an utterance breaks: safe unique ids, duration in seconds, a transcript if `labeled`."""
    seen = set()
    for utterance in utterances:
        if not SAFE_ID.fullmatch(utterance.id):
            yield f"{utterance.audio}: utterance id {utterance.id!r} is no safe file name; use only A-Z a-z 0-9 _ . -"
        if not SAFE_ID.fullmatch(utterance.speaker):
            yield f"{utterance.id}: speaker id {utterance.speaker!r} is no safe file name; use only A-Z a-z 0-9 _ . -"
        if utterance.id in seen:
            yield f"{utterance.id}: duplicate utterance id ({utterance.audio}); ids must be unique in a split"
        seen.add(utterance.id)
        if utterance.duration < min_duration:
            yield (
                f"{utterance.audio}: {utterance.duration:.3f} s of audio, expected at least {min_duration} s; "
                "remove it, or lower corpus.min_duration"
            )
        if labeled and not utterance.text.strip():
            yield f"{utterance.id}: empty transcript ({utterance.audio}); transcribe or remove it"


def overlaps(splits: dict[str, list[Utterance]]) -> Iterator[str]:
    """One line for each utterance id, speaker or audio file of `dev` or `test` that another split has too."""
    for held_out in ("dev", "test"):
        for other in (name for name in splits if name != held_out and (held_out, name) != ("test", "dev")):
            for field in ("id", "speaker", "audio"):
                common = {getattr(u, field) for u in splits[held_out]} & {getattr(u, field) for u in splits[other]}
                if common:
                    yield (
                        f"{held_out} and {other} share {len(common)} {field}(s), such as {min(common)}; "
                        "what is measured on must be in no other split"
                    )


def write(directory: Path, utterances: list[Utterance]) -> None:
    """Write a data directory; the utterances are sorted here."""
    utterances = sorted(utterances, key=lambda u: u.id.encode())
    speakers: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        speakers.setdefault(utterance.speaker, []).append(utterance)
    directory.mkdir(parents=True, exist_ok=True)
    tables = {
        "wav.scp": [(u.id, u.audio) for u in utterances],
        "utt2spk": [(u.id, u.speaker) for u in utterances],
        "utt2dur": [(u.id, f"{u.duration:.4f}") for u in utterances],
        "text": [(u.id, u.text) for u in utterances if u.text],
        "spk2utt": [(s, " ".join(u.id for u in speakers[s])) for s in sorted(speakers, key=str.encode)],
        "spk2gender": [(s, speakers[s][0].gender) for s in sorted(speakers, key=str.encode) if speakers[s][0].gender],
    }
    for name, rows in tables.items():
        if rows or name not in ("text", "spk2gender"):
            (directory / name).write_text("".join(f"{key} {value}\n" for key, value in rows), encoding="utf-8")


def read_table(path: Path) -> dict[str, str]:
    """Read `<key> <value>` lines.

    Raises InputError naming the file and line of a key that comes twice or a line without a value.
    """
    table: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}); is this a Kaldi data directory?") from None
    for number, line in enumerate(lines, 1):
        key, _, value = line.strip().partition(" ")
        if not value:
            raise InputError(f"{path}:{number}: {line!r} has no value; expected '<id> <value>'")
        if key in table:
            raise InputError(f"{path}:{number}: {key} comes twice; ids must be unique")
        table[key] = value.strip()
    return table


def read(directory: Path) -> list[Utterance]:
    """Read a data directory that `write` made."""
    optional = {n: read_table(directory / n) if (directory / n).exists() else {} for n in ("text", "spk2gender")}
    speakers, durations = read_table(directory / "utt2spk"), read_table(directory / "utt2dur")
    return [
        Utterance(
            id=key,
            speaker=speakers[key],
            audio=audio,
            duration=float(durations[key]),
            text=optional["text"].get(key, ""),
            gender=optional["spk2gender"].get(speakers[key], ""),
        )
        for key, audio in read_table(directory / "wav.scp").items()
    ]
