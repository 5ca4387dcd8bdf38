"""NIST's matched-pairs sentence-segment word error test (MAPSSWE), as sctk's `sc_stats -t mapsswe` makes it."""

from typing import NamedTuple

import numpy as np
from scipy import special

GOOD = 2  # words in a row that both systems have right, and that part one segment from the next


class MatchedPairs(NamedTuple):
    """`mean` and `deviation` of b's errors minus a's per segment; `z` and two-sided `p`, None if undefined."""

    segments: int
    mean: float | None
    deviation: float | None
    z: float | None
    p: float | None


def _words(ops: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each reference word, and of each utterance's end: is it wrong, insertions before it, is it an end."""
    letters = np.frombuffer("".join(f"{one}." for one in ops).encode(), np.uint8)
    places = np.flatnonzero(letters != ord("I"))
    end = letters[places] == ord(".")
    return (letters[places] != ord("C")) & ~end, np.diff(places, prepend=-1) - 1, end


def _differences(ops_a: list[str], ops_b: list[str]) -> np.ndarray:
    """Errors of b minus errors of a in each segment that holds an error of either."""
    (wrong_a, before_a, end), (wrong_b, before_b, end_b) = _words(ops_a), _words(ops_b)
    if not np.array_equal(end, end_b):
        raise ValueError("the two alignments are with unlike references")
    errors_a, errors_b = before_a + wrong_a, before_b + wrong_b
    both_right = ~(wrong_a | wrong_b | end)
    places = np.flatnonzero(errors_a + errors_b)
    if not len(places):
        return np.zeros(0)
    right = (np.cumsum(both_right) - both_right)[places]  # words before it that both have right; the word itself
    utterance = (np.cumsum(end) - end)[places]  # comes after the insertions that count here
    new = (np.diff(right, prepend=-GOOD) >= GOOD) | (np.diff(utterance, prepend=-1) > 0)
    return np.add.reduceat((errors_b - errors_a)[places], np.flatnonzero(new)).astype(float)


def matched_pairs(ops_a: list[str], ops_b: list[str]) -> MatchedPairs:
    """Whether systems a and b differ in their errors per segment, on the texts at hand.

    `ops_*` hold, for each utterance, a system's alignment with the reference that both share, a letter a token: C,
    S, D or I (L. Gillick and S. Cox, "Some statistical issues in the comparison of speech recognition algorithms",
    ICASSP 1989). It knows one decoding of each system, hence nothing of the noise of seeds.
    """
    differences = _differences(ops_a, ops_b)
    if len(differences) < 2:
        return MatchedPairs(len(differences), None, None, None, None)
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if not deviation:
        return MatchedPairs(len(differences), mean, deviation, None, None)
    z = float(mean / (deviation / np.sqrt(len(differences))))
    return MatchedPairs(len(differences), mean, deviation, z, float(2 * special.ndtr(-abs(z))))
