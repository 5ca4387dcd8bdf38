"""A user's own audio, as Kaldi data directories (kaldi-asr.org/doc/data_prep.html).

wav.scp     <utterance> <path>, or with segments <recording> <path>
segments    <utterance> <recording> <start> <end>     seconds, an end of -1 is the recording's; optional
utt2spk     <utterance> <speaker>
text        <utterance> <words>                       optional in `pretrain`
spk2gender  <speaker> <m or f>                        optional
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from local import audio
from local.corpora import listed, upper_case
from local.errors import InputError
from local.manifest import Utterance, rows, twice
from local.roots import located

TABLES = ("utt2spk", "wav.scp", "segments", "text", "spk2gender")
NEEDED = TABLES[:2]
# All that is known of an utterance; `known` is not null if wav.scp has its recording, and `path` if that is sound.
QUERY = """
    SELECT part.key, part.recording, start, end, "wav.scp".key AS known, path, seconds,
        utt2spk.value AS speaker, text.value AS text, spk2gender.value AS gender
    FROM part LEFT JOIN "wav.scp" ON "wav.scp".key = part.recording LEFT JOIN sound ON sound.key = part.recording
        LEFT JOIN utt2spk ON utt2spk.key = part.key LEFT JOIN text ON text.key = part.key
        LEFT JOIN spk2gender ON spk2gender.key = utt2spk.value
    ORDER BY part.key
"""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kaldi:
    """`splits` names the data directory, or directories, of each split below `root`.

    Audio at another rate than `sample_rate` is refused, or left to be resampled if `resample` is true.
    """

    name: str
    root: str
    sample_rate: int
    resample: bool
    splits: dict[str, str | list[str]]

    def __post_init__(self):
        if not Path(self.root).is_dir():
            raise InputError(
                f"{self.root}: no such folder; set corpus.root to the folder of your Kaldi data directories"
            )

    def transcripts(self) -> list[str]:
        """Every table that was read."""
        paths = (
            directory / table for split in self.splits for directory in self._directories(split) for table in TABLES
        )
        return sorted({str(path) for path in paths if path.exists()})

    def utterances(self, split: str) -> Iterator[Utterance | InputError]:
        """The utterances of a split, with an InputError in place of each one that is broken."""
        for directory in self._directories(split):
            if not directory.is_dir():
                present = ", ".join(sorted(path.name for path in self._tree.iterdir() if os.path.isdir(path)))
                raise InputError(
                    f"{directory}: no such folder for corpus.splits.{split}; {self._tree} holds: {present or 'none'}; "
                    "set corpus.root to the folder of your Kaldi data directories"
                )
            yield from self._of(directory)

    def _directories(self, split: str) -> list[Path]:
        return [self._tree / name for name in listed(self.splits[split])]

    @cached_property
    def _tree(self) -> Path:
        """`root`; a folder near it only where that has none of the directories, for their names are common."""
        root, names = Path(self.root), {name for names in self.splits.values() for name in listed(names)}
        if any(os.path.isdir(root / name) for name in names):
            return root
        return located(self.root, lambda path: all(os.path.isdir(path / name) for name in names))

    def _of(self, directory: Path) -> Iterator[Utterance | InputError]:
        with closing(_loaded(directory)) as db:
            yield from self._sounds(directory, db)
            segmented = db.execute("SELECT 1 FROM segments").fetchone() is not None
            if segmented:
                yield from _parts(directory, db)
            else:
                db.execute('INSERT INTO part SELECT key, key, 0.0, -1.0 FROM "wav.scp"')
            for table in ("text", "utt2spk"):
                source = "segments" if segmented else '"wav.scp"'
                for (key,) in db.execute(f"SELECT key FROM {table} EXCEPT SELECT key FROM {source}"):
                    yield InputError(f"{directory}/{table}: {key} has no audio; remove the line, or add its audio")
            db.row_factory = sqlite3.Row
            for row in db.execute(QUERY):
                try:
                    if utterance := self._utterance(directory, row, segmented):
                        yield utterance
                except InputError as error:
                    yield error

    def _sounds(self, directory: Path, db: sqlite3.Connection) -> Iterator[InputError]:
        """Fill in the paths and lengths of all recordings; the errors of those that are broken."""
        rates = set()
        for key, entry in db.execute('SELECT key, value FROM "wav.scp"'):
            try:
                path = _path(directory, key, entry)
                rate = audio.header(path).rate if self.resample else self.sample_rate
                db.execute("INSERT INTO sound VALUES (?, ?, ?)", (key, path, audio.duration(path, rate)))
                rates.add(rate)
            except InputError as error:
                yield error
        if others := rates - {self.sample_rate}:
            log.warning("%s: audio at %s Hz, to be resampled to %d Hz", directory, sorted(others), self.sample_rate)

    def _utterance(self, directory: Path, row: sqlite3.Row, segmented: bool) -> Utterance | None:
        """None if its recording is broken, which has been said."""
        key, recording, start, end, seconds = (row[name] for name in ("key", "recording", "start", "end", "seconds"))
        if row["speaker"] is None:
            raise InputError(f"{directory}/utt2spk: no line for {key}; add its speaker")
        if row["known"] is None:
            raise InputError(f"{directory}/segments: {key} is of {recording}, which wav.scp lacks; add its audio")
        if row["path"] is None:
            return None
        if end > seconds + 0.01 or start >= seconds:
            raise InputError(
                f"{directory}/segments: {key} is {start} s to {end} s of {recording}, of {seconds:.2f} s; mend it"
            )
        return Utterance(
            key, row["speaker"], row["path"], (min(end, seconds) if end >= 0 else seconds) - start,
            self.normalize(row["text"] or ""), row["gender"] or "",
            recording=recording if segmented else "", start=start,
        )  # fmt: skip

    def normalize(self, text: str) -> str:
        """Upper case; every other character stays, and is an error if it is not among the units."""
        return upper_case(text)


def _path(directory: Path, key: str, entry: str) -> str:
    try:
        return audio.path_of(entry)
    except InputError as error:
        raise InputError(f"{directory}/wav.scp: {key}: {error}") from None


def _loaded(directory: Path) -> sqlite3.Connection:
    """The tables of a directory in a database on disk that nobody else sees: memory does not grow with them."""
    db = sqlite3.connect("")
    db.execute("CREATE TABLE sound (key PRIMARY KEY, path, seconds REAL) WITHOUT ROWID")
    db.execute("CREATE TABLE part (key PRIMARY KEY, recording, start REAL, end REAL) WITHOUT ROWID")
    for table in TABLES:
        db.execute(f'CREATE TABLE "{table}" (key PRIMARY KEY, value) WITHOUT ROWID')
        if table in NEEDED or (directory / table).exists():
            for number, *row in rows(directory / table, bare=table == "text"):  # said of the utterance, with others
                if not db.execute(f'INSERT OR IGNORE INTO "{table}" VALUES (?, ?)', row).rowcount:
                    raise twice(directory / table, number, row[0])
    return db


def _parts(directory: Path, db: sqlite3.Connection) -> Iterator[InputError]:
    """Fill in the parts that segments names; the errors of lines that name none."""
    for key, line in db.execute("SELECT key, value FROM segments"):
        try:
            db.execute("INSERT INTO part VALUES (?, ?, ?, ?)", (key, *_segment(directory, key, line)))
        except InputError as error:
            yield error


def _segment(directory: Path, key: str, line: str) -> tuple[str, float, float]:
    """Recording, start and end in seconds; the end is -1 where it is the recording's."""
    try:
        recording, start, end = line.split()
        start, end = float(start), float(end)
        if start < 0 or (end <= start and end != -1):
            raise ValueError
    except ValueError:
        raise InputError(
            f"{directory}/segments: {key} {line!r}, expected '<recording> <start> <end>' in seconds, start before end"
        ) from None
    return recording, start, end
