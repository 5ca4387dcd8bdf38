"""Score directories, written as Kaldi's score.sh and sclite read them.

    wer         result lines
    per_utt     alignments, read back by `read_alignments`
    per_spk     counts by speaker, read back by `read_counts`
    per_group   the same by gender and by duration
    confusions  <count> <reference word> <hypothesis word>, *** for a deletion or insertion, the most frequent first
    worst       <utterance> <errors> <reference words> <percent>, those with the most errors
    ref.trn, hyp.trn

sclite takes the last two as they are. It reads a speaker off an utterance id, up to the first `_` or `-`; `per_spk` has
the speakers of the data directory.
"""

from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from local.edits import Counts, align, count_characters, sides, tally
from local.errors import InputError
from local.manifest import Utterance

WORST = 20  # utterances that `worst` names
BOUNDS = (2, 5, 10, 15)  # seconds, between these groups
DURATIONS = ("duration=<2s", "duration=2-5s", "duration=5-10s", "duration=10-15s", "duration=>15s")
GROUPS = ("gender=f", "gender=m", *DURATIONS)
FILES = ("wer", "per_utt", "per_spk", "per_group", "confusions", "worst", "ref.trn", "hyp.trn")


@dataclass(frozen=True)
class Scores:
    """What `per_spk` says, K speakers in its order."""

    speakers: tuple[str, ...]
    utterances: np.ndarray  # [K]
    words: Counts  # of arrays [K], likewise below
    characters: Counts


@dataclass(frozen=True)
class Alignment:
    """The words of an utterance as they were said and heard, and a letter for each step: C, S, D or I."""

    id: str
    reference: list[str]
    hypothesis: list[str]
    ops: str

    @cached_property
    def rows(self) -> tuple[list[str], list[str], str]:
        """Reference, hypothesis and letters, step by step."""
        return *sides(self.reference, self.hypothesis, self.ops), self.ops


def groups(utterance: Utterance) -> list[str]:
    """Those of GROUPS that an utterance is in, by its speaker's gender, if that is known, and its duration."""
    gender = [f"gender={utterance.gender}"] if utterance.gender else []
    return [*gender, DURATIONS[bisect(BOUNDS, utterance.duration)]]


def result_line(name: str, counts: Counts) -> str:
    """Kaldi's result line, for example `%WER 12.34 [ 123 / 997, 10 ins, 20 del, 93 sub ]`."""
    return (
        f"%{name} {counts.rate:.2f} [ {counts.errors} / {counts.length}, "
        f"{counts.ins} ins, {counts.del_} del, {counts.sub} sub ]"
    )


def write_scores(
    out: Path, references: dict[str, str], hypotheses: dict[str, str], speakers: dict[str, str], rate: str = "WER",
    grouped: dict[str, list[str]] | None = None,
) -> dict[str, object]:  # fmt: skip
    """Score `hypotheses` against `references` (utterance to text) and write the files into `out`.

    A missing hypothesis is all deletions. Characters are those of the text, spaces included. `rate` is what the errors
    by word are called; those of other units, for phones PER, have no characters to count. `grouped` has the GROUPS of
    each utterance. Returns utterances, words, wer and cer in percent, errors by kind, how many hypotheses are missing
    and how many references are empty. Raises InputError for a hypothesis of an unknown utterance and for references
    without a single word, before anything is written.
    """
    if unknown := sorted(hypotheses.keys() - references.keys()):
        raise InputError(f"{unknown[0]}: a hypothesis without a reference ({len(unknown)} such); score the same split")
    if not any(text.split() for text in references.values()):
        raise InputError(f"{out}: the {len(references)} references hold no word; nothing can be scored")
    order = sorted(references)
    texts = [[found.get(key, "").split() for key in order] for found in (references, hypotheses)]
    found = [Alignment(*one) for one in zip(order, *texts, align(*texts), strict=True)]
    words = [tally(one.ops) for one in found]
    characters = [count_characters(" ".join(one.reference), " ".join(one.hypothesis)) for one in found]
    total, letters = sum(words, Counts()), sum(characters, Counts())
    lines = [result_line(rate, total), result_line("CER", letters)]
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "wer", lines[: 2 if rate == "WER" else 1])
    _write(out / "ref.trn", (" ".join([*one.reference, f"({one.id})"]) for one in found))
    _write(out / "hyp.trn", (" ".join([*one.hypothesis, f"({one.id})"]) for one in found))
    _write(out / "per_utt", map(_per_utterance, found))
    _write(out / "confusions", _confusions(found))
    _write(out / "worst", _worst(found, words))
    counted = list(zip(order, words, characters, strict=True))
    by_speaker = _summed((speakers[key], *counts) for key, *counts in counted)
    by_group = _summed((group, *counts) for key, *counts in counted for group in (grouped or {}).get(key, ()))
    _write(out / "per_spk", _table("speaker", sorted(by_speaker.items())))
    _write(out / "per_group", _table("group", [(name, by_group[name]) for name in GROUPS if name in by_group]))
    return {
        "utterances": len(order), "words": total.length, "wer": total.rate, "cer": letters.rate,
        "errors": {"sub": total.sub, "del": total.del_, "ins": total.ins},
        "missing": len(references.keys() - hypotheses.keys()),
        "empty": sum(not one.reference for one in found),
    }  # fmt: skip


def _write(path: Path, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _per_utterance(one: Alignment) -> str:
    """The four lines of Kaldi's per_utt, columns aligned."""
    rows = one.rows
    widths = list(map(max, *([*map(len, row)] for row in rows[:2])))
    lines = [
        f"{one.id} {name:4} {' '.join(map(str.ljust, row, widths))}".rstrip()
        for name, row in zip(("ref", "hyp", "op"), rows, strict=True)
    ]
    return "\n".join([*lines, f"{one.id} #csid {' '.join(str(one.ops.count(op)) for op in 'CSID')}"])


def _confusions(found: list[Alignment]) -> list[str]:
    """A line for each pair of unlike words, the most frequent first."""
    counts = Counter(chain.from_iterable(zip(*one.rows[:2], strict=True) for one in found))
    wrong = [(-count, r, h) for (r, h), count in counts.items() if r != h]
    return [f"{-count} {r} {h}" for count, r, h in sorted(wrong)]


def _worst(found: list[Alignment], words: list[Counts]) -> list[str]:
    """A line for each of the utterances with the most errors, if they have any."""
    wrong = sorted((-count.errors, one.id, count) for one, count in zip(found, words, strict=True) if count.errors)
    return [f"{key} {count.errors} {count.length} {_percent(count)}" for _, key, count in wrong[:WORST]]


def _percent(counts: Counts) -> str:
    return "-" if counts.rate is None else f"{counts.rate:.2f}"


def _summed(counted: Iterable[tuple[str, Counts, Counts]]) -> dict[str, tuple[int, Counts, Counts]]:
    """For each name, how many have it, and the sums of their counts in words and in characters."""
    rows: dict[str, tuple[int, Counts, Counts]] = {}
    for name, words, characters in counted:
        utterances, *both = rows.get(name, (0, Counts(), Counts()))
        rows[name] = utterances + 1, both[0] + words, both[1] + characters
    return rows


def _table(what: str, rows: Iterable[tuple[str, tuple[int, Counts, Counts]]]) -> list[str]:
    """A line a row, for words and then for characters: tokens, errors sub del ins, percent (- if none)."""
    lines = [f"# {what} utterances words sub del ins wer characters sub del ins cer"]
    for name, (utterances, *both) in rows:
        fields = [[counts.length, counts.sub, counts.del_, counts.ins, _percent(counts)] for counts in both]
        lines.append(" ".join(map(str, [name, utterances, *fields[0], *fields[1]])))
    return lines


@contextmanager
def _lines(path: Path) -> Iterator[list[str]]:
    """The lines of a file, and an InputError if it is not there, or they turn out to be others than are written."""
    if not path.is_file():
        if splits := sorted(other.parent.name for other in path.parent.glob(f"*/{path.name}")):
            raise InputError(f"{path}: not found; name the folder of a split: {path.parent / splits[0]}")
        raise InputError(f"{path}: not found; score this directory first")
    try:
        yield path.read_text(encoding="utf-8").splitlines()
    except (ValueError, IndexError) as error:  # of which text that is not UTF-8 is one
        raise InputError(
            f"{path}: is not as stage 7 wrote it ({error}); remove its folder, and score it again"
        ) from None


def read_counts(directory: Path, by: str = "per_spk") -> Scores:
    """The counts by speaker, or those of `per_group`, that `write_scores` left in `directory`.

    Raises InputError if they are not there, or damaged; the others below likewise.
    """
    with _lines(Path(directory) / by) as lines:
        rows = [line.split() for line in lines[1:]]
        numbers = [[int(row[i]) for i in (1, 2, 3, 4, 5, 7, 8, 9, 10)] for row in rows]
    utterances, *table = np.array(numbers, int).reshape(-1, 9).T

    def counts(length, sub, del_, ins) -> Counts:
        return Counts(sub, del_, ins, length)

    return Scores(tuple(row[0] for row in rows), utterances, counts(*table[:4]), counts(*table[4:]))


def read_alignments(directory: Path) -> list[Alignment]:
    """Each utterance's alignment, in the order of ids."""
    found = []
    with _lines(Path(directory) / "per_utt") as lines:
        steps = zip(*[map(str.split, lines)] * 4, strict=True)
        for (key, _, *reference), (_, _, *hypothesis), (_, _, *ops), _ in steps:
            said = [word for word, op in zip(reference, ops, strict=True) if op != "I"]
            heard = [word for word, op in zip(hypothesis, ops, strict=True) if op != "D"]
            found.append(Alignment(key, said, heard, "".join(ops)))
    return found


def read_confusions(directory: Path) -> Counter[tuple[str, str]]:
    """How often each pair of unlike words is confused."""
    with _lines(Path(directory) / "confusions") as lines:
        rows = map(str.split, lines)
        return Counter({(reference, hypothesis): int(count) for count, reference, hypothesis in rows})


def read_worst(directory: Path) -> list[str]:
    """The utterances with the most errors."""
    with _lines(Path(directory) / "worst") as lines:
        return [line.split()[0] for line in lines]


def read_ops(directory: Path) -> list[str]:
    """Each utterance's ops, a letter a token, in the order of ids."""
    with _lines(Path(directory) / "per_utt") as lines:
        return ["".join(line.split()[2:]) for line in lines[2::4]]
