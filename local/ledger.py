"""All utterances of all splits, on disk while they are sorted, counted and compared: memory does not grow with them."""

import errno
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

from local.manifest import SPLITS, Utterance

COLUMNS = [field.name for field in fields(Utterance)]
FIELDS = attrgetter(*COLUMNS)  # several times as fast as dataclasses.astuple


class Ledger:
    """A table of the utterances of `splits` in the file `path`, which is there while the context lasts.

    Beside an utterance's own fields it holds the sample `rate` in Hz and a `digest` of the samples, empty if unknown.
    """

    def __init__(self, path: Path, splits: tuple[str, ...] = SPLITS) -> None:
        self.path = path
        self.masks = {split: 1 << number for number, split in enumerate(splits)}  # a set of splits is the sum of theirs

    def __enter__(self) -> "Ledger":
        self.db = sqlite3.connect(self.path)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384"):  # thrown away if anything fails
            self.db.execute(f"PRAGMA {pragma}")
        self.db.execute(
            f"CREATE TABLE utterance (split INTEGER, {', '.join(COLUMNS)}, rate INTEGER, digest TEXT, "
            "PRIMARY KEY (split, id)) WITHOUT ROWID"
        )
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.db.close()
        self.path.unlink(missing_ok=True)
        if isinstance(error, sqlite3.OperationalError):
            number = errno.ENOSPC if error.sqlite_errorname == "SQLITE_FULL" else errno.EIO
            raise OSError(number, str(error), str(self.path)) from None

    def add(self, split: str, utterance: Utterance, rate: int = 0, digest: str = "") -> bool:
        """Add an utterance; False, and nothing added, if its split has the id already."""
        row = (self.masks[split], *FIELDS(utterance), rate, digest)
        done = self.db.execute(f"INSERT OR IGNORE INTO utterance VALUES ({', '.join('?' * len(row))})", row)
        return done.rowcount == 1

    def rows(self, split: str) -> Iterator[Utterance]:
        """The utterances of a split, sorted by id in byte order."""
        query = f"SELECT {', '.join(COLUMNS)} FROM utterance WHERE split = ? ORDER BY id"
        return (Utterance(*row) for row in self.db.execute(query, (self.masks[split],)))

    def digests(self, split: str) -> Iterator[tuple[str, str]]:
        """Id and digest, sorted by id, of the utterances that are a file of their own with a known digest."""
        where = "split = ? AND digest != '' AND recording = ''"
        return self.db.execute(f"SELECT id, digest FROM utterance WHERE {where} ORDER BY id", (self.masks[split],))

    def words(self, split: str) -> Counter[str]:
        """How often each word occurs in a split: as large as its vocabulary."""
        counts = Counter()
        for (text,) in self.db.execute("SELECT text FROM utterance WHERE split = ?", (self.masks[split],)):
            counts.update(text.split())
        return counts

    def numbers(self, split: str) -> dict:
        """Counts of a split, its hours, the least, median and largest duration in seconds, and its rates in Hz."""
        (count, speakers, hours, least, largest) = self.db.execute(
            "SELECT count(*), count(DISTINCT speaker), total(duration) / 3600, min(duration), max(duration) "
            "FROM utterance WHERE split = ?",
            (self.masks[split],),
        ).fetchone()
        (median,) = self.db.execute(
            "SELECT avg(duration) FROM (SELECT duration FROM utterance WHERE split = ? ORDER BY duration "
            "LIMIT 2 - ? % 2 OFFSET (? - 1) / 2)",
            (self.masks[split], count, count),
        ).fetchone()
        rates = self.db.execute(
            "SELECT DISTINCT rate FROM utterance WHERE split = ? ORDER BY rate", (self.masks[split],)
        )
        return {
            "utterances": count, "speakers": speakers, "hours": hours, "durations": (least, median, largest),
            "rates": [rate for (rate,) in rates],
        }  # fmt: skip

    def holders(self, expression: str, value: str) -> str:
        """An utterance of each split of which an SQL expression has this value, as `<split> <id>`."""
        query = f"SELECT split, min(id) FROM utterance WHERE {expression} = ? GROUP BY split ORDER BY split"
        rows = self.db.execute(query, (value,))
        names = {mask: split for split, mask in self.masks.items()}
        return " and ".join(f"{names[split]} {key}" for split, key in rows)

    def sharing(self, value: str) -> Iterator[tuple[int, int, str]]:
        """For each set of splits, how many values of an SQL expression occur in just these, and the least of them.

        Empty values count for nothing.
        """
        return self.db.execute(
            "SELECT splits, count(*), min(value) FROM "
            f"(SELECT {value} AS value, sum(DISTINCT split) AS splits FROM utterance WHERE value != '' GROUP BY value) "
            "GROUP BY splits"
        )
