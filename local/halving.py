"""Successive halving: a training that is not among the best of its search half way goes no further.

The asynchronous rule of Li et al. 2020 (ASHA), as Optuna's pruner has it: at each rung, a share of the updates, a trial
goes on if it is in the best part of all those that got there before it, itself included. What each had at a rung lies
in a file, so that trials on several nodes need nothing but a folder in common.
"""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from local.errors import InputError
from local.failure import Stopped
from local.marker import read_json, write_atomically


class Halving:
    """The rule of `cfg.halving` for the recognizer of a cell, judged by the rate that chooses its checkpoint."""

    def __init__(self, cfg: DictConfig) -> None:
        self.keep, shares = cfg.halving.keep, cfg.halving.at
        if not 0 < self.keep <= 1 or not OmegaConf.is_list(shares) or not all(0 < share < 1 for share in shares):
            raise InputError(
                f"halving.keep={self.keep} halving.at={shares}: expected a share of the trials, and shares of the "
                "updates, such as halving.keep=0.5 halving.at=[0.25,0.5]; with halving.at=[] none is stopped"
            )
        self.folders = {share: Path(cfg.halving.rungs) / f"{share:g}" for share in sorted(shares)}
        self.name, self.updates = Path(cfg.dirs.finetune).name, cfg.recognizer.updates
        self.monitor = f"val_{cfg.recognizer.best or 'wer'}"

    def reached(self, rows: list[dict]) -> dict[float, tuple[int, float]]:
        """For each rung that a history has come to: the step, and the best rate on dev up to there, in percent."""
        found = {}
        for share in self.folders:
            early = [row for row in rows if row["step"] < share * self.updates]
            if len(early) < len(rows) and rows[len(early)]["step"] < self.updates:  # the end is no rung
                best = min(row[self.monitor] for row in rows[: len(early) + 1])
                found[share] = (rows[len(early)]["step"], best)
        return found

    def record(self, rows: list[dict]) -> None:
        """Leave what a history had at its rungs."""
        for share, (step, best) in self.reached(rows).items():
            self.folders[share].mkdir(parents=True, exist_ok=True)
            write_atomically(self.folders[share] / self.name, json.dumps({"step": step, "best": best}) + "\n")

    def recorded(self) -> dict[int, float]:
        """The best rate by step, for each rung that the training came to."""
        found = (read_json(folder / self.name) for folder in self.folders.values())
        return {one["step"]: one["best"] for one in found if one}

    def __call__(self, rows: list[dict]) -> None:
        """After each validation; raises Stopped if this was a rung, and the training is not good enough to go on."""
        self.record(rows)
        for share, (step, best) in self.reached(rows).items():
            if step == rows[-1]["step"]:
                there = [read_json(path) for path in self.folders[share].iterdir() if path.suffix != ".tmp"]
                rates = sorted(one["best"] for one in there if one)
                limit = rates[max(1, int(self.keep * len(rates))) - 1]
                if best > limit:
                    raise Stopped(
                        f"stopped at update {step} of {self.updates}: {best:.2f} % on dev, and of {len(rates)} trials "
                        f"so far {self.keep:.0%} have at most {limit:.2f} %"
                    )
