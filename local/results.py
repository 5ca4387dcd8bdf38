"""From the score directories of a sweep's cells to the content of results.json.

A row is an arm: all cells equal in all but the seed. Rates are in percent, differences in points, arm minus
baseline. The same score directories give the same bytes: nothing here depends on the date or the machine.
"""

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from local.errors import InputError
from local.matched_pairs import matched_pairs
from local.scoring import Scores, read_counts, read_ops
from local.significance import Comparison, bootstrap, compare, holm, interval, resample

# What pretraining is held against: no front end, the same trained for as long as pretraining and fine-tuning take, the
# same with a recognizer of as many parameters as the pretrained arm has in all, and a front end with random weights.
# Every other arm is a pretrained one.
BASELINES = ("none", "longer", "wide", "random")
ALIKE = {"longer": "untimed", "wide": "unsized"}  # the digest in which these controls are like the others
AS_MANY = 0.05  # by so much, relatively, the parameters of `wide` may be off
ENTRY = ("corpus", "label_hours", "label_subset", "split", "decoder", "rate")  # the settings of an entry
ROW = ("arm", "frontend", "signature")  # and of a row in it
TEST = ("segments", "z", "p")  # what is kept of a matched-pairs test


@dataclass(frozen=True)
class Cell:
    """One scored decoding, and what it cost. `signature` tells rows apart and leaves out the seed."""

    corpus: str
    label_hours: float | None  # None is all of them
    split: str
    decoder: str
    arm: str
    frontend: str
    signature: str
    seed: int
    score_dir: Path
    dev_score_dir: Path
    parameters: int
    updates: int
    dropped: int  # training utterances too short for CTC
    device_seconds: float  # pretraining included
    label_subset: int | None = 0  # None: each seed drew its own, so the spread of the seeds holds that of subsets too
    labeled_hours: float | None = None  # of audio, in numbers even if it is all
    unlabeled_hours: float | None = None  # None where no unlabeled audio is read
    best: str = "wer"  # or cer: the rate by which dev chooses
    rate: str = "WER"  # what the rate of errors is called: of phones, PER
    augmentation: str = ""  # what training was given, in words
    settings: str = ""  # those that were swept, as on a command line
    shared: str = ""  # digests: of all but the front end,
    unsized: str = ""  #   of all but the front end and the recognizer's size,
    untimed: str = ""  #   of all but the front end and the recognizer's updates,
    front_end: str = ""  #   and of the front end, trained or not
    quality: dict | None = None  # what its bottleneck holds (local/quality.py), if that was measured
    trial: int | None = None  # of a search, its number,
    trials: dict | None = None  #   and how many the arm had, by how they ended
    tuning: dict | None = None  # a split's trials of the decoder's settings, the best first, if there were any


def entries(cells: list[Cell]) -> list[dict]:
    """The content of results.json: an entry per label budget, split and decoder, with its arms and comparisons.

    Where each seed drew its own label subset, a seed is one draw of both, independent of the others, so what the
    statistics say of seeds they say of seeds and subsets together: their variance is not told apart, and none of it
    is left out. Subsets are common to the arms, and not paired, which can only widen an interval. Fixed subsets make
    an entry each.

    Raises InputError where two cells of an entry were scored on unlike references, or are the same seed twice.
    """
    groups: dict[tuple, list[Cell]] = {}
    for cell in sorted(cells, key=_order):
        groups.setdefault(tuple(getattr(cell, name) for name in ENTRY), []).append(cell)
    return [_entry(group) for group in groups.values()]


def _order(cell: Cell) -> tuple:
    hours = float("inf") if cell.label_hours is None else cell.label_hours
    subset = -1 if cell.label_subset is None else cell.label_subset
    place = BASELINES.index(cell.arm) if cell.arm in BASELINES else len(BASELINES)
    return (
        cell.corpus,
        hours,
        subset,
        cell.split,
        cell.decoder,
        place,
        cell.arm,
        cell.frontend,
        cell.unlabeled_hours or 0,
        cell.signature,
        cell.seed,
    )


def fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 of the sorted lines of a `ref.trn`: which words of which utterances were scored."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _entry(cells: list[Cell]) -> dict:
    scores = [read_counts(cell.score_dir) for cell in cells]
    prints = [fingerprint((cell.score_dir / "ref.trn").read_text(encoding="utf-8").splitlines()) for cell in cells]
    for cell, found, digest in zip(cells, scores, prints, strict=True):
        if digest != prints[0] or found.speakers != scores[0].speakers:
            raise InputError(
                f"{cell.score_dir}: its references or speakers differ from those of {cells[0].score_dir}; "
                "only scores on the same text can be compared"
            )
    rows: dict[tuple, list[tuple[Cell, Scores]]] = {}
    for cell, found in zip(cells, scores, strict=True):
        rows.setdefault(tuple(getattr(cell, name) for name in ROW), []).append((cell, found))
    arms = [_arm(row) for row in rows.values()]
    found = _comparisons(list(rows.values()), arms)
    if cells[0].split == "dev":
        arms.sort(key=lambda arm: arm[cells[0].best])  # dev selects
    utterances, words = int(scores[0].utterances.sum()), int(scores[0].words.length.sum())
    return (
        {name: getattr(cells[0], name) for name in ENTRY}
        | {
            "reference": {"utterances": utterances, "words": words, "sha256": prints[0]},
            "arms": arms,
            "comparisons": found,
        }
        | ({"best": cells[0].best} if cells[0].split == "dev" else {})
        | ({"trials": {cell.arm: cell.trials for cell in cells}} if cells[0].trials else {})
    )


def _errors(row: list[tuple[Cell, Scores]], unit: str = "words") -> np.ndarray:
    """Errors [S, K] of one row, in words or characters."""
    return np.stack([getattr(found, unit).errors for _, found in row])


def _arm(row: list[tuple[Cell, Scores]]) -> dict:
    cell, found = row[0]
    if len({cell.seed for cell, _ in row}) < len(row):
        raise InputError(f"{cell.score_dir}: arm {cell.arm} has the same seed twice; list each cell once")
    seeds = [_seed(cell, found) for cell, found in row]
    wer, low, high = interval(_errors(row), found.words.length)
    return (
        {name: getattr(cell, name) for name in (*ROW, "settings", "labeled_hours", "unlabeled_hours")}
        | {
            "seeds": seeds,
            "wer": wer,
            "cer": float(np.mean([seed["cer"] for seed in seeds])),
            "ci": [low, high],
            "parameters": cell.parameters,
            "updates": cell.updates,
            "dropped": cell.dropped,
            "augmentation": cell.augmentation,
            "device_seconds": float(np.mean([cell.device_seconds for cell, _ in row])),
        }
        | ({} if cell.trial is None else {"trial": cell.trial})
        | _quality([cell.quality for cell, _ in row if cell.quality])
    )


def _quality(seeds: list[dict]) -> dict:
    """Means over the seeds that were measured, of what all of them have; nothing if none was."""
    shared = [key for key in seeds[0] if all(key in each for each in seeds)] if seeds else []
    means = {key: np.mean([each[key] for each in seeds], 0).tolist() for key in shared if key != "features"}
    return {"quality": means | {"features": seeds[0]["features"]}} if seeds else {}


def _seed(cell: Cell, found: Scores) -> dict:
    words = found.words
    return {
        "seed": cell.seed,
        "wer": words.rate,
        "cer": found.characters.rate,
        "dev_wer": read_counts(cell.dev_score_dir).words.rate,
        "errors": {"sub": int(words.sub.sum()), "del": int(words.del_.sum()), "ins": int(words.ins.sum())},
    } | _tuned(cell)


def _tuned(cell: Cell) -> dict:
    """The decoder's settings that dev chose among how many, and the rate had this split chosen; nothing if untuned."""
    if not cell.tuning:
        return {}
    chosen = {key: value for key, value in cell.tuning["dev"][0].items() if key != "wer"}
    best = cell.tuning[cell.split][0]["wer"]
    return {"decoder": {"chosen": chosen, "trials": len(cell.tuning["dev"]), "chosen_here": best}}


def _comparable(baseline: Cell, arm: Cell) -> bool:
    """Whether the two make one of the contrasts that are fixed in advance, and differ in nothing else.

    A pretrained arm has four: with `none`, with `longer` if it is fine-tuned through, for that is whose time `longer`
    has, with `wide` and with its own `random`. What these three bring without pretraining is held against `none`.
    """
    if baseline.arm not in BASELINES or (arm.arm in BASELINES and (baseline.arm != "none" or arm.arm == "none")):
        return False
    alike = next((ALIKE[cell.arm] for cell in (baseline, arm) if cell.arm in ALIKE), "shared")
    if getattr(baseline, alike) != getattr(arm, alike):
        return False
    if baseline.arm == "longer":
        return arm.frontend == "finetuned"
    if baseline.arm == "wide":
        return abs(baseline.parameters - arm.parameters) <= AS_MANY * arm.parameters
    return baseline.arm == "none" or baseline.front_end == arm.front_end


def _median(row: list[tuple[Cell, Scores]], seeds: list[dict]) -> Cell:
    """The cell of median dev WER; of an even number, the better of the two in the middle."""
    order = sorted(range(len(row)), key=lambda i: seeds[i]["dev_wer"])
    return row[order[(len(order) - 1) // 2]][0]


def _comparisons(rows: list[list[tuple[Cell, Scores]]], arms: list[dict]) -> list[dict]:
    """Every contrast of two rows, and none on dev, which selects.

    Holm's family is that of the pretrained arms; differences in characters, where there are, are a family beside it.
    """
    if rows[0][0][0].split == "dev":
        return []
    words = rows[0][0][1].words.length
    errors = [_errors(row) for row in rows]
    rates = np.split(resample(np.concatenate(errors), words), np.cumsum([len(each) for each in errors])[:-1])
    medians = [_median(row, arm["seeds"]) for row, arm in zip(rows, arms, strict=True)]
    ops = [read_ops(cell.score_dir) for cell in medians]
    found = []
    for i, j in itertools.product(range(len(rows)), repeat=2):
        baseline, arm = medians[i], medians[j]
        if not _comparable(baseline, arm):
            continue
        result = compare(errors[i], errors[j], words)
        drawn = (None, None) if result.low is None else bootstrap(rates[i], rates[j])
        found.append(
            {"baseline": baseline.arm, "baseline_signature": baseline.signature}
            | {name: getattr(arm, name) for name in ROW}
            | difference(result)
            | {"bootstrap": list(drawn)}
            | {"matched_pairs": matched(ops[i], ops[j], [arm.seed, baseline.seed])}
            | ({"characters": _in_characters(rows[i], rows[j])} if arm.rate == "WER" else {})
        )
    _correct(found, found)
    _correct(found, [c["characters"] for c in found if "characters" in c])
    return found


def _correct(found: list[dict], differences: list[dict]) -> None:
    """Put Holm's p-values into differences, which are those of `found` in words or in characters."""
    tested = [None if c["arm"] in BASELINES else d["p"] for c, d in zip(found, differences, strict=False)]
    for difference, p in zip(differences, holm(tested), strict=True):
        difference["p_holm"] = p


def matched(baseline: list[str], arm: list[str], seeds: list[int]) -> dict:
    """What is kept of the matched-pairs test of two alignments of these seeds, the arm's first."""
    pairs = matched_pairs(baseline, arm)
    return {"seeds": seeds} | {key: getattr(pairs, key) for key in TEST}


def difference(result: Comparison) -> dict:
    """What is kept of a comparison."""
    kept = {"delta": result.delta, "relative": result.relative, "ci": [result.low, result.high]}
    return kept | {"detectable": result.detectable, "p": result.p}


def _in_characters(baseline: list[tuple[Cell, Scores]], arm: list[tuple[Cell, Scores]]) -> dict:
    """The difference in character errors."""
    counts = [_errors(row, "characters") for row in (baseline, arm)]
    return difference(compare(*counts, baseline[0][1].characters.length))
