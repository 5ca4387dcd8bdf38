"""Kaldi data directories: the only contract between corpus code and everything after it.

    wav.scp   <utterance> <path>          text        <utterance> <words>
    utt2spk   <utterance> <speaker>       spk2utt     <speaker> <utterance> ...
    utt2dur   <utterance> <seconds>       spk2gender  <speaker> m|f   (where it is known of every speaker)
    segments  <utterance> <recording> <start> <end>, in seconds, of longer recordings; then wav.scp has these
    phones.ctm   <utterance> 1 <begin> <duration> <phone>, in seconds   (of those of which the corpus has the times)

Every file is UTF-8 and sorted by its first field in byte order. `text` is there if every utterance has one.
local/validation.py checks a directory by Kaldi's own rules.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import merge
from pathlib import Path

from local.errors import InputError

SAFE_ID = re.compile(r"[A-Za-z0-9_.-]+")
SPLITS = ("pretrain", "train", "dev", "test")
FURTHER = re.compile(r"test\w+")  # what may name a test set beside `test`
RESERVED = frozenset(("<s>", "</s>", "#0"))  # words that Kaldi's decoding graphs need for themselves


@dataclass(frozen=True)
class Utterance:
    """One utterance: `duration` in seconds, from the audio's header; `text` normalized, empty if unknown.

    `session` is the chapter or sitting it was recorded in, `book` what was read there and `sentence` the name of a
    prompt that several speakers read, all empty if unknown. Of a longer `recording`, which `audio` then is, it is the
    part from `start` seconds on; empty if it is all of it. `phones` says when each was said, in lines of `<begin>
    <duration> <phone>` from the utterance's beginning, in seconds and in the order of time; empty if unknown.
    """

    id: str
    speaker: str
    audio: str
    duration: float
    text: str = ""
    gender: str = ""
    session: str = ""
    book: str = ""
    sentence: str = ""
    recording: str = ""
    start: float = 0.0
    phones: str = ""


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """The splits that every corpus has, and then what further test sets are among `names`."""
    return (*SPLITS, *sorted(set(names) - set(SPLITS)))


def splits(data: Path) -> tuple[str, ...]:
    """The splits that stage 1 made in `data`."""
    return ordered(path.parent.name for path in data.glob("*/wav.scp"))


def held_out(split: str) -> bool:
    """Whether errors are measured on it, so that it must share nothing with another one."""
    return split == "dev" or split.startswith("test")


def problems(utterance: Utterance, min_duration: float, max_duration: float, labeled: bool) -> Iterator[str]:
    """One line for each rule an utterance breaks: safe ids, durations in seconds, a transcript if `labeled`."""
    audio = printable(utterance.audio)
    for what, name in (("utterance", utterance.id), ("speaker", utterance.speaker), ("recording", utterance.recording)):
        if not SAFE_ID.fullmatch(name) and (name or what != "recording"):
            where = audio if what == "utterance" else utterance.id
            yield f"{where}: {what} id {name!a} is no safe file name; use only A-Z a-z 0-9 _ . -"
    if audio != utterance.audio.strip():
        yield f"{audio}: its name is not UTF-8 or has odd spaces, which wav.scp cannot hold; rename the file"
    if audio.startswith("~") or audio.endswith("|"):
        yield f"{audio}: expected the path of a file, without ~ or |; write it in full"
    if not utterance.duration >= max(min_duration, 0.0001):
        yield (
            f"{audio}: {utterance.duration:.3f} s of audio, expected at least {min_duration} s; "
            "remove it, or lower corpus.min_duration"
        )
    if utterance.duration > max_duration:
        yield (
            f"{audio}: {utterance.duration:.3f} s of audio, expected at most {max_duration} s; "
            "cut it (segments of a Kaldi data directory do), or raise corpus.max_duration"
        )
    if utterance.gender not in ("", "m", "f"):
        yield f"{utterance.id}: gender {utterance.gender!a} of {utterance.speaker}, expected m, f or nothing; mend it"
    if labeled and not utterance.text.strip():
        yield f"{utterance.id}: empty transcript ({audio}); transcribe or remove it"
    elif utterance.text:
        yield from _text_problems(utterance.id, utterance.text)


def printable(path: str) -> str:
    """A path as one line of UTF-8, which a file's name need not be; for such a name another string."""
    return path.encode(errors="backslashreplace").decode().replace("\n", "\\n")


def _text_problems(key: str, text: str) -> Iterator[str]:
    if not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        odd = sorted({c for c in text if not c.isprintable() or c == "\N{REPLACEMENT CHARACTER}"})
        yield f"{key}: {' '.join(map(ascii, odd))} in its transcript, expected printable text; mend its encoding"
    elif not any(c.isalnum() for c in text):
        yield f"{key}: transcript {text!r} has no letter, expected words; transcribe or remove it"
    elif reserved := RESERVED.intersection(text.split(" ")):
        yield f"{key}: {min(reserved)} in its transcript is a reserved symbol of Kaldi; take it out"


def write(directory: Path, utterances: Iterable[Utterance]) -> None:
    """Write a data directory of utterances that come sorted by id in byte order; in memory are ids alone.

    Raises InputError if one recording's id names two files, and ValueError if the order is another.
    """
    directory.mkdir(parents=True, exist_ok=True)
    speakers: dict[str, bytearray] = {}  # an object an utterance would take three times as much
    genders: dict[str, str] = {}
    recordings: dict[str, str] = {}
    labeled, timed, last = True, False, b""
    with ExitStack() as stack:
        names = ("wav.scp", "utt2spk", "utt2dur", "text", "segments", "phones.ctm")
        wav, utt2spk, utt2dur, text, segments, phones = (
            stack.enter_context(open(directory / name, "w", encoding="utf-8")) for name in names
        )
        for u in utterances:
            key = u.id.encode()
            if key <= last:
                raise ValueError(f"{directory}: {u.id} comes after {last.decode()}, expected ids in byte order")
            last = key
            if not u.recording:
                wav.write(f"{u.id} {u.audio}\n")
            elif recordings.setdefault(u.recording, u.audio) != u.audio:
                raise InputError(
                    f"{u.audio}: recording {u.recording} is {recordings[u.recording]} too; expected one file an id"
                )
            segments.write(f"{u.id} {u.recording or u.id} {u.start:.5f} {u.start + u.duration:.5f}\n")
            utt2spk.write(f"{u.id} {u.speaker}\n")
            utt2dur.write(f"{u.id} {u.duration:.5f}\n")
            text.write(f"{u.id} {u.text}\n")
            phones.writelines(f"{u.id} 1 {span}\n" for span in u.phones.splitlines())
            labeled, timed = labeled and bool(u.text), timed or bool(u.phones)
            speakers.setdefault(u.speaker, bytearray()).extend(b" " + key)
            genders[u.speaker] = u.gender
    _write_lines(directory / "spk2utt", (f"{s}{speakers[s].decode()}\n" for s in sorted(speakers)))
    if all(genders.values()):
        _write_lines(directory / "spk2gender", (f"{s} {genders[s]}\n" for s in sorted(genders)))
    if not labeled or not last:
        (directory / "text").unlink()
    if not timed:
        (directory / "phones.ctm").unlink()
    if recordings:
        _add_recordings(directory / "wav.scp", recordings)
    else:
        (directory / "segments").unlink()


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)


def _add_recordings(wav: Path, recordings: dict[str, str]) -> None:
    """Merge recordings with the whole files among the lines of `wav`."""
    whole = wav.rename(wav.with_suffix(".whole"))
    with open(whole, encoding="utf-8") as lines:
        added = (f"{key} {recordings[key]}\n" for key in sorted(recordings))
        _write_lines(wav, merge(lines, added, key=lambda line: line.partition(" ")[0]))
    whole.unlink()


def rows(path: Path, bare: bool = False) -> Iterator[tuple[int, str, str]]:
    """Number, key and value of each `<key> <value>` line, which a tab may part too.

    Raises InputError naming the line that has no value, unless it may be `bare`.
    """
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                key, _, value = line.strip().partition(" ")
                if "\t" in key:
                    key, _, value = line.strip().partition("\t")
                if not value and not (key and bare):
                    raise InputError(f"{path}:{number}: {line.rstrip()!r} has no value; expected '<id> <value>'")
                yield number, key, value.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}); expected lines of '<id> <value>'") from None


def twice(path: Path, number: int, key: str) -> InputError:
    """That a line has the key of another one."""
    return InputError(f"{path}:{number}: {key} comes twice; ids must be unique")


def read_table(path: Path) -> dict[str, str]:
    """Read `<key> <value>` lines; raises InputError as `rows` does, and for a key that comes twice."""
    table: dict[str, str] = {}
    for number, key, value in rows(path):
        if key in table:
            raise twice(path, number, key)
        table[key] = value
    return table


def read_phones(directory: Path) -> dict[str, list[tuple[float, float, str]]]:
    """Begin and duration in seconds, and name, of each phone of each utterance; nothing where no times are known."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    for _, key, value in rows(directory / "phones.ctm") if (directory / "phones.ctm").exists() else ():
        _, begin, duration, phone = value.split()
        found.setdefault(key, []).append((float(begin), float(duration), phone))
    return found


def read_archived(directory: Path, archive: Path) -> list[Utterance]:
    """The utterances of a data directory that its archive has, for stage 2 may have left some out."""
    kept = read_table(archive / "utt2spk")
    return [utterance for utterance in read(directory) if utterance.id in kept]


def used(cfg, split: str) -> list[Utterance]:
    """The utterances of a split of the configured corpus that stage 2 has left in."""
    return read_archived(Path(cfg.dirs.data) / split, Path(cfg.dirs.features) / split)


def read(directory: Path) -> list[Utterance]:
    """Read a data directory that `write` made."""
    texts, genders, segments = (
        read_table(directory / name) if (directory / name).exists() else {}
        for name in ("text", "spk2gender", "segments")
    )
    durations, audio = read_table(directory / "utt2dur"), read_table(directory / "wav.scp")
    utterances = []
    for key, speaker in read_table(directory / "utt2spk").items():
        recording, start, _ = segments[key].split() if segments else ("", 0, 0)
        utterances.append(
            Utterance(
                id=key,
                speaker=speaker,
                audio=audio[recording or key],
                duration=float(durations[key]),
                text=texts.get(key, ""),
                gender=genders.get(speaker, ""),
                recording=recording,
                start=float(start),
            )
        )
    return utterances
