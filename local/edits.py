"""Word and character errors between references and hypotheses, counted as NIST's sclite does."""

from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

GAP = "***"  # the other side of a deletion or insertion
INDEL, SUB = 3, 4  # sclite's costs; a match costs nothing
CELLS = 1_000_000  # of the table of costs, at once
MANY = 1 << 20  # more substitutions than there are in an utterance


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


def align(references: list[list[str]], hypotheses: list[list[str]]) -> list[str]:
    """The alignment of each pair, a letter a token, as sclite's: C is correct, S substituted, D deleted, I inserted.

    Three substitutions cost what two deletions, two insertions and a match do, so counts hang on which of equal costs
    is taken: a diagonal step before an insertion before a deletion, backward from the end, as in net_dp.c of NIST's
    SCTK. No library has the costs and this order. Pairs of like length share one table of costs.
    """
    number: dict[str, int] = {}
    tokens = [
        [np.array([number.setdefault(token, len(number)) for token in text], np.int64) for text in texts]
        for texts in (references, hypotheses)
    ]
    numbered = list(zip(*tokens, strict=True))
    found = ["C" * len(reference) for reference in references]  # of equal texts, and below of the others
    unlike = (i for i in range(len(numbered)) if references[i] != hypotheses[i])
    order = sorted(unlike, key=lambda i: max(map(len, numbered[i])))
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


def sides(reference: list[str], hypothesis: list[str], ops: str) -> tuple[list[str], list[str]]:
    """Both texts of an alignment, token beside token, with GAP where one of them has none."""
    left, right = iter(reference), iter(hypothesis)
    return [GAP if op == "I" else next(left) for op in ops], [GAP if op == "D" else next(right) for op in ops]


def tally(ops: str) -> Counts:
    """The counts of one alignment, or of several in a row."""
    return Counts(ops.count("S"), ops.count("D"), ops.count("I"), len(ops) - ops.count("I"))


def count_words(references: list[str], hypotheses: list[str]) -> Counts:
    """Errors of all hypotheses against their references, a token a word."""
    return tally("".join(align([text.split() for text in references], [text.split() for text in hypotheses])))


def count_characters(reference: str, hypothesis: str) -> Counts:
    """Errors between two texts, a token a character, spaces included.

    The costs are sclite's too. Of alignments that cost the same it is one with the fewest errors, so with the most
    substitutions: each is made cheaper by less than all of them together could make up for, and the remainder of the
    cost, which is all that rapidfuzz computes, tells how many there were.
    """
    found = Levenshtein.distance(reference, hypothesis, weights=(INDEL * MANY, INDEL * MANY, SUB * MANY - 1))
    cost = -(-found // MANY)
    sub = cost * MANY - found
    indels, longer = (cost - SUB * sub) // INDEL, len(hypothesis) - len(reference)
    return Counts(sub, (indels - longer) // 2, (indels + longer) // 2, len(reference))
