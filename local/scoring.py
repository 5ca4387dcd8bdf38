"""Word and character errors: counted as NIST's sclite does, written as Kaldi's score.sh and sclite read them.

A score directory holds `wer` (result lines), `per_utt` (alignments, read back by `read_ops`), `per_spk` (counts,
read back by `read_counts`), and `ref.trn` and `hyp.trn`, which sclite takes as they are. It reads a speaker off an
utterance id, up to the first `_` or `-`; `per_spk` has the speakers of the data directory.
"""

from dataclasses import dataclass
from pathlib import Path

import kaldialign
import numpy as np

from local.errors import InputError

GAP = ""  # the other side of a deletion or insertion; no token is empty
INDEL, SUB = 3, 4  # sclite's costs; a match costs nothing
CELLS = 1_000_000  # of the table of costs, at once


@dataclass(frozen=True)
class Counts:
    """Errors against `length` reference tokens: plain numbers, or arrays [K] with a value a speaker."""

    sub: int | np.ndarray = 0
    del_: int | np.ndarray = 0
    ins: int | np.ndarray = 0
    length: int | np.ndarray = 0

    @property
    def errors(self) -> int | np.ndarray:
        return self.sub + self.del_ + self.ins

    @property
    def rate(self) -> float | None:
        """Percent of the reference, over all speakers; None without a reference."""
        total = int(np.sum(self.length))
        return 100 * int(np.sum(self.errors)) / total if total else None

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.sub + other.sub, self.del_ + other.del_, self.ins + other.ins, self.length + other.length)


@dataclass(frozen=True)
class Scores:
    """What `per_spk` says, K speakers in its order."""

    speakers: tuple[str, ...]
    utterances: np.ndarray  # [K]
    words: Counts  # of arrays [K], likewise below
    characters: Counts


def align(references: list[list[str]], hypotheses: list[list[str]]) -> list[str]:
    """The alignment of each pair, a letter a token, as sclite's: C is correct, S substituted, D deleted, I inserted.

    Three substitutions cost what two deletions, two insertions and a match do, so counts hang on which of equal costs
    is taken: a diagonal step before an insertion before a deletion, backward from the end, as in net_dp.c of NIST's
    SCTK. kaldialign has the costs but not this order. Pairs of like length share one table of costs.
    """
    number: dict[str, int] = {}
    tokens = [
        [np.array([number.setdefault(token, len(number)) for token in text], np.int64) for text in texts]
        for texts in (references, hypotheses)
    ]
    numbered = list(zip(*tokens, strict=True))
    order = sorted(range(len(numbered)), key=lambda i: max(map(len, numbered[i])))
    found = [""] * len(numbered)
    while order:
        longest = 1 + max(map(len, numbered[order[-1]]))
        block = [order.pop() for _ in range(min(len(order), max(1, CELLS // longest**2)))]
        for i, ops in zip(block, _align_block([numbered[i] for i in block]), strict=True):
            found[i] = ops
    return found


def _align_block(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[str]:
    """The alignments of pairs of token numbers, all in one table of costs."""
    (reference, i), (hypothesis, j) = (_padded([pair[side] for pair in pairs], -1 - side) for side in (0, 1))
    each, ramp = np.arange(len(pairs)), INDEL * np.arange(hypothesis.shape[1] + 1, dtype=np.int32)
    costs = np.empty((reference.shape[1] + 1, len(pairs), len(ramp)), np.int32)
    costs[0] = ramp
    for above, row, token in zip(costs[:-1], costs[1:], reference.T, strict=True):
        row[:, 0] = above[:, 0] + INDEL
        np.minimum(above[:, :-1] + SUB * (token[:, None] != hypothesis), above[:, 1:] + INDEL, out=row[:, 1:])
        np.add(np.minimum.accumulate(row - ramp, axis=1), ramp, out=row)  # insertions, however many in a row
    letters = np.full((len(pairs), sum(map(max, (i, j))) + 1), ord(" "), np.uint8)
    for letter in letters.T:
        both, here = (i > 0) & (j > 0), costs[i, each, j]
        same = both & (reference[each, i - 1] == hypothesis[each, j - 1])
        diagonal = both & (here == costs[i - 1, each, j - 1] + SUB * ~same)
        inserted = ~diagonal & (j > 0) & (here == costs[i, each, j - 1] + INDEL)
        deleted = ~diagonal & ~inserted & (i > 0)
        for op, chosen in zip("CSID", (diagonal & same, diagonal & ~same, inserted, deleted), strict=True):
            letter[chosen] = ord(op)
        i, j = i - (diagonal | deleted), j - (diagonal | inserted)
    return [row.tobytes().decode().rstrip()[::-1] for row in letters]


def _padded(rows: list[np.ndarray], filling: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as one array, a column at least, and their lengths."""
    lengths = np.array([len(row) for row in rows])
    table = np.full((len(rows), max(1, lengths.max())), filling)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table, lengths


def pairs(reference: list[str], hypothesis: list[str], ops: str) -> list[tuple[str, str]]:
    """The pairs (reference token or GAP, hypothesis token or GAP) of an alignment."""
    left, right = iter(reference), iter(hypothesis)
    return [(GAP if op == "I" else next(left), GAP if op == "D" else next(right)) for op in ops]


def tally(ops: str) -> Counts:
    """The counts of one alignment, or of several in a row."""
    return Counts(ops.count("S"), ops.count("D"), ops.count("I"), len(ops) - ops.count("I"))


def count_words(references: list[str], hypotheses: list[str]) -> Counts:
    """Errors of all hypotheses against their references, a token a word."""
    return tally("".join(align([text.split() for text in references], [text.split() for text in hypotheses])))


def count_characters(reference: str, hypothesis: str) -> Counts:
    """Errors between two texts, a token a character, spaces included.

    By kaldialign, for the sake of speed: the same costs, and of equal costs any.
    """
    found = kaldialign.edit_distance(reference, hypothesis, sclite_mode=True)
    return Counts(found["sub"], found["del"], found["ins"], found["ref_len"])


def result_line(name: str, counts: Counts) -> str:
    """Kaldi's result line, for example `%WER 12.34 [ 123 / 997, 10 ins, 20 del, 93 sub ]`."""
    return (
        f"%{name} {counts.rate:.2f} [ {counts.errors} / {counts.length}, "
        f"{counts.ins} ins, {counts.del_} del, {counts.sub} sub ]"
    )


def _per_utterance(utterance: str, pairs: list[tuple[str, str]], ops: str) -> str:
    """The four lines of Kaldi's per_utt, columns aligned."""
    columns = [(r or "***", h or "***", op) for (r, h), op in zip(pairs, ops, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row, name in enumerate(("ref", "hyp", "op")):
        cells = (column[row].ljust(width) for column, width in zip(columns, widths, strict=True))
        lines.append(f"{utterance} {name:4} {' '.join(cells)}".rstrip())
    lines.append(f"{utterance} #csid {' '.join(str(ops.count(op)) for op in 'CSID')}")
    return "\n".join(lines) + "\n"


def _write_speakers(path: Path, rows: dict[str, tuple[int, Counts, Counts]]) -> None:
    """A line a speaker, for words and then for characters: tokens, errors sub del ins, percent (- if none)."""
    lines = ["# speaker utterances words sub del ins wer characters sub del ins cer"]
    for speaker, (utterances, *both) in sorted(rows.items()):
        fields = [speaker, utterances]
        for counts in both:
            rate = "-" if counts.rate is None else f"{counts.rate:.2f}"
            fields += [counts.length, counts.sub, counts.del_, counts.ins, rate]
        lines.append(" ".join(map(str, fields)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_scores(
    out: Path, references: dict[str, str], hypotheses: dict[str, str], speakers: dict[str, str], rate: str = "WER"
) -> dict[str, object]:
    """Score `hypotheses` against `references` (utterance to text) and write the files into `out`.

    A missing hypothesis is all deletions. Characters are those of the text, spaces included. `rate` is what the errors
    by word are called; those of other units, for phones PER, have no characters to count. Returns utterances,
    words, wer and cer in percent, and errors by kind. Raises InputError for a hypothesis of an unknown utterance
    and for references without a single word.
    """
    unknown = sorted(hypotheses.keys() - references.keys())
    if unknown:
        raise InputError(f"{unknown[0]}: a hypothesis without a reference ({len(unknown)} such); score the same split")
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, tuple[int, Counts, Counts]] = {}
    with (
        open(out / "per_utt", "w", encoding="utf-8") as per_utt,
        open(out / "ref.trn", "w", encoding="utf-8") as ref_trn,
        open(out / "hyp.trn", "w", encoding="utf-8") as hyp_trn,
    ):
        order = sorted(references)
        texts = [[found.get(key, "").split() for key in order] for found in (references, hypotheses)]
        for utterance, reference, hypothesis, ops in zip(order, *texts, align(*texts), strict=True):
            ref_trn.write(" ".join([*reference, f"({utterance})"]) + "\n")
            hyp_trn.write(" ".join([*hypothesis, f"({utterance})"]) + "\n")
            per_utt.write(_per_utterance(utterance, pairs(reference, hypothesis, ops), ops))
            characters = count_characters(" ".join(reference), " ".join(hypothesis))
            utterances, words, letters = rows.get(speakers[utterance], (0, Counts(), Counts()))
            rows[speakers[utterance]] = utterances + 1, words + tally(ops), letters + characters
    words, characters = (sum((row[i] for row in rows.values()), Counts()) for i in (1, 2))
    if not words.length:
        raise InputError(f"{out}: the {len(references)} references hold no word; nothing can be scored")
    lines = [result_line(rate, words), result_line("CER", characters)]
    (out / "wer").write_text("".join(f"{line}\n" for line in lines[: 2 if rate == "WER" else 1]))
    _write_speakers(out / "per_spk", rows)
    return {
        "utterances": len(references),
        "words": words.length,
        "wer": words.rate,
        "cer": characters.rate,
        "errors": {"sub": words.sub, "del": words.del_, "ins": words.ins},
    }


def _read(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path}: not found; score this directory first")
    return path.read_text(encoding="utf-8").splitlines()


def read_counts(directory: Path) -> Scores:
    """The counts by speaker that `write_scores` left in `directory`. Raises InputError if they are not there."""
    rows = [line.split() for line in _read(Path(directory) / "per_spk")[1:]]
    utterances, *table = np.array([[int(row[i]) for i in (1, 2, 3, 4, 5, 7, 8, 9, 10)] for row in rows]).T

    def counts(length, sub, del_, ins) -> Counts:
        return Counts(sub, del_, ins, length)

    return Scores(tuple(row[0] for row in rows), utterances, counts(*table[:4]), counts(*table[4:]))


def read_ops(directory: Path) -> list[str]:
    """Each utterance's ops, a letter a token, in the order of ids. Raises InputError if they are not there."""
    return ["".join(line.split()[2:]) for line in _read(Path(directory) / "per_utt")[2::4]]
