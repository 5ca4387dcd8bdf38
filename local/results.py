"""From the score directories of a sweep's cells to the content of results.json.

A row is an arm: all cells equal in all but the seed. Rates are in percent, differences in points, arm minus
baseline. The same score directories give the same bytes: nothing here depends on the date or the machine.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from local.errors import InputError
from local.scoring import Scores, read_counts
from local.significance import compare, holm, interval

BASELINES = ("none", "random")  # what pretraining is held against; every other arm is a pretrained one
ENTRY = ("corpus", "label_hours", "split", "decoder")  # the settings of an entry
ROW = ("arm", "frontend", "signature")  # and of a row in it


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
    shared: str = ""  # a digest of what arms must have in common to be compared


def entries(cells: list[Cell]) -> list[dict]:
    """The content of results.json: an entry per label hours, split and decoder, with its arms and comparisons.

    Raises InputError where two cells of an entry were scored on unlike references, or are the same seed twice.
    """
    groups: dict[tuple, list[Cell]] = {}
    for cell in sorted(cells, key=_order):
        groups.setdefault(tuple(getattr(cell, name) for name in ENTRY), []).append(cell)
    return [_entry(group) for group in groups.values()]


def _order(cell: Cell) -> tuple:
    hours = float("inf") if cell.label_hours is None else cell.label_hours
    place = BASELINES.index(cell.arm) if cell.arm in BASELINES else len(BASELINES)
    return (cell.corpus, hours, cell.split, cell.decoder, place, cell.arm, cell.frontend, cell.signature, cell.seed)


def _fingerprint(directory: Path) -> str:
    """SHA-256 of the sorted lines of `ref.trn`: which words of which utterances were scored."""
    lines = (Path(directory) / "ref.trn").read_text(encoding="utf-8").splitlines()
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _entry(cells: list[Cell]) -> dict:
    scores = [read_counts(cell.score_dir) for cell in cells]
    prints = [_fingerprint(cell.score_dir) for cell in cells]
    for cell, found, digest in zip(cells, scores, prints, strict=True):
        if digest != prints[0] or found.speakers != scores[0].speakers:
            raise InputError(
                f"{cell.score_dir}: its references or speakers differ from those of {cells[0].score_dir}; "
                "only scores on the same text can be compared"
            )
    rows: dict[tuple, list[tuple[Cell, Scores]]] = {}
    for cell, found in zip(cells, scores, strict=True):
        rows.setdefault(tuple(getattr(cell, name) for name in ROW), []).append((cell, found))
    utterances, words = int(scores[0].utterances.sum()), int(scores[0].words.length.sum())
    return {name: getattr(cells[0], name) for name in ENTRY} | {
        "reference": {"utterances": utterances, "words": words, "sha256": prints[0]},
        "arms": [_arm(row) for row in rows.values()],
        "comparisons": _comparisons(list(rows.values())),
    }


def _errors(row: list[tuple[Cell, Scores]]) -> np.ndarray:
    """Word errors [S, K] of one row."""
    return np.stack([found.words.errors for _, found in row])


def _arm(row: list[tuple[Cell, Scores]]) -> dict:
    cell, found = row[0]
    if len({cell.seed for cell, _ in row}) < len(row):
        raise InputError(f"{cell.score_dir}: arm {cell.arm} has the same seed twice; list each cell once")
    seeds = [_seed(cell, found) for cell, found in row]
    wer, low, high = interval(_errors(row), found.words.length)
    return {name: getattr(cell, name) for name in ROW} | {
        "seeds": seeds,
        "wer": wer,
        "cer": float(np.mean([seed["cer"] for seed in seeds])),
        "ci": [low, high],
        "parameters": cell.parameters,
        "updates": cell.updates,
        "dropped": cell.dropped,
        "device_seconds": float(np.mean([cell.device_seconds for cell, _ in row])),
    }


def _seed(cell: Cell, found: Scores) -> dict:
    words = found.words
    return {
        "seed": cell.seed,
        "wer": words.rate,
        "cer": found.characters.rate,
        "dev_wer": read_counts(cell.dev_score_dir).words.rate,
        "errors": {"sub": int(words.sub.sum()), "del": int(words.del_.sum()), "ins": int(words.ins.sum())},
    }


def _comparisons(rows: list[list[tuple[Cell, Scores]]]) -> list[dict]:
    """Every arm against each row of `none` and `random` that shares all but the front end.

    Holm's family is that of the pretrained arms.
    """
    found = []
    for base in rows:
        for row in rows:
            baseline, arm = base[0][0], row[0][0]
            if baseline.arm not in BASELINES or arm.arm in (baseline.arm, "none") or baseline.shared != arm.shared:
                continue
            result = compare(_errors(base), _errors(row), row[0][1].words.length)
            names = {"baseline": baseline.arm, "baseline_signature": baseline.signature}
            names |= {name: getattr(arm, name) for name in ROW}
            spread = {"ci": [result.low, result.high], "p": result.p}
            found.append(names | {"delta": result.delta, "relative": result.relative} | spread)
    corrected = holm([None if c["arm"] in BASELINES else c["p"] for c in found])
    return [c | {"p_holm": p} for c, p in zip(found, corrected, strict=True)]
