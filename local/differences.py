"""What lies behind a difference: the speakers, groups and utterances that it comes from, and the words confused."""

from collections import Counter
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from local.edits import GAP
from local.results import BASELINES, ENTRY, ROW, Cell
from local.scoring import Alignment, Scores, read_alignments, read_confusions, read_counts

SHOWN = 5  # utterances whose errors rose most, and as many whose errors fell most
Heard = tuple[str, str]  # a word, and C, S, D or I; both empty where only the other hypothesis has a word


class Change(NamedTuple):
    """An utterance and its errors, means over the seeds of the baseline and of the arm; alignments are of one seed."""

    before: float
    after: float
    baseline: Alignment
    arm: Alignment

    @property
    def columns(self) -> list[tuple[str, Heard, Heard]]:
        """Each word of the reference, GAP where something is inserted, and what both hypotheses have there."""
        (inserted, heard), (others, also) = _slots(self.baseline), _slots(self.arm)
        found = []
        for i in range(len(inserted)):
            both = zip_longest(inserted[i], others[i], fillvalue="")
            found += [(GAP, *((word, "I" if word else "") for word in pair)) for pair in both]
            if i < len(heard):
                found.append((self.baseline.reference[i], heard[i], also[i]))
        return found


def _slots(one: Alignment) -> tuple[list[list[str]], list[Heard]]:
    """What is inserted before each reference word and after the last, and what each is heard as."""
    inserted, heard = [[]], []
    for _, word, op in zip(*one.rows, strict=True):
        if op == "I":
            inserted[-1].append(word)
        else:
            heard.append((word, op))
            inserted.append([])
    return inserted, heard


def rows(entry: dict, cells: list[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """The cells of each row (arm, signature) of an entry of results.json, in the order of seeds."""
    own = [cell for cell in cells if all(getattr(cell, name) == entry[name] for name in ENTRY)]
    own.sort(key=lambda cell: cell.seed)
    keys = [(row["arm"], row["signature"]) for row in entry["arms"]]
    return {key: [cell for cell in own if (cell.arm, cell.signature) == key] for key in keys}


def contrasts(entry: dict) -> list[dict]:
    """The comparisons of pretrained arms with `none`, or if it is not there with others; the best on dev first."""
    pretrained = [c for c in entry["comparisons"] if c["arm"] not in BASELINES]
    dev = {tuple(a[key] for key in ROW): np.mean([seed["dev_wer"] for seed in a["seeds"]]) for a in entry["arms"]}
    found = [c for c in pretrained if c["baseline"] == "none"] or pretrained
    return sorted(found, key=lambda c: dev[tuple(c[key] for key in ROW)])


def cells_of(c: dict, found: dict[tuple[str, str], list[Cell]]) -> tuple[list[Cell], list[Cell]]:
    """The cells of a comparison's baseline and of its arm."""
    return found[c["baseline"], c["baseline_signature"]], found[c["arm"], c["signature"]]


def by(table: str, baseline: list[Cell], arm: list[Cell]) -> list[tuple[str, int, float]]:
    """Name, words and difference in points, arm minus baseline, of each line of `per_spk` or `per_group` with words."""
    scores = [[read_counts(cell.score_dir, table) for cell in cells] for cells in (baseline, arm)]
    before, after = (np.mean([_rates(one) for one in each], 0) for each in scores)
    names, words = scores[0][0].speakers, scores[0][0].words.length
    return [(name, int(n), float(d)) for name, n, d in zip(names, words, after - before, strict=True) if n]


def _rates(scores: Scores) -> np.ndarray:
    """Percent [K], NaN without words."""
    return 100 * scores.words.errors / np.where(scores.words.length, scores.words.length, np.nan)


def confusions(cells: list[Cell]) -> list[tuple[str, str, float]]:
    """Reference and hypothesis, one of them *** for a deletion or insertion, and how often a seed confuses them."""
    counts = sum((read_confusions(cell.score_dir) for cell in cells), Counter())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(*pair, count / len(cells)) for pair, count in ordered]


def changes(c: dict, found: dict[tuple[str, str], list[Cell]]) -> tuple[list[Change], list[Change]]:
    """The utterances whose errors rose most from a comparison's baseline to its arm, and those whose fell most.

    Alignments are those of the seeds of median dev error, as the matched-pairs test has them.
    """
    errors, shown = [], []
    for cells, seed in zip(cells_of(c, found), c["matched_pairs"]["seeds"][::-1], strict=True):
        aligned = [read_alignments(cell.score_dir) for cell in cells]
        errors.append(np.mean([[len(one.ops) - one.ops.count("C") for one in each] for each in aligned], 0))
        shown.append(aligned[[cell.seed for cell in cells].index(seed)])
    all_of_them = [Change(*each) for each in zip(*(e.tolist() for e in errors), *shown, strict=True)]
    ordered = sorted(all_of_them, key=lambda one: (one.before - one.after, one.arm.id))
    rose = [one for one in ordered if one.after > one.before]
    fell = [one for one in ordered[::-1] if one.after < one.before]
    return rose[:SHOWN], fell[:SHOWN]
