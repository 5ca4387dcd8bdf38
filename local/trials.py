"""The trials of a search, `sweep=optuna`: a Hydra sweeper that lets Optuna draw the cells, for each arm as many.

A trial is one job, from pretraining to the WER on dev, launched as any cell (`hydra/launcher=...`); what it shares with
others is made once, for directories are functions of settings. The rule that stops one stands in local/halving.py.
"""

import hashlib
import itertools
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log
from omegaconf import DictConfig

from local import failure, listing, ranks
from local.cells import SOME_FAILED, Cells, values
from local.config import plain
from local.errors import InputError, refusals_reported
from local.halving import Halving
from local.marker import read_json
from local.stage import STAGES, stage_number
from local.tree import flat

log = logging.getLogger(__name__)
SEARCHED = ("autoencoder", "unlabeled", "recognizer")  # the groups whose settings are those of a training
WHOLE = ["stage=pretrain", "stop_stage=score"]  # what a trial runs


class Arm:
    """An arm of a search: its study, and the overrides that all of its trials have.

    `cell` is one of them, for what does not depend on the settings that are drawn.
    """

    def __init__(self, overrides: list[str], cell: DictConfig, space: dict[str, Override]) -> None:
        from local.study import Study  # Optuna takes half a second, and other sweeps do without

        searched = [key.rpartition("@")[2] for key in space]
        halving = {key: value for key, value in plain(cell, "halving").items() if key != "rungs"}
        fixed = flat(listing.settings(cell) | {"halving": halving})
        fixed = {k: v for k, v in fixed.items() if not any(k == s or k.startswith(f"{s}.") for s in searched)}
        self.name, self.overrides, self.cell = cell.arm.name, overrides, cell
        self.study = Study(Path(cell.sweep.study), self.name, space, fixed)
        self.left = self.missing()
        Halving(cell)  # which has its own complaints

    def missing(self) -> int:
        """How many trials it has not had yet."""
        counts = self.study.counts()
        return max(0, self.cell.sweep.trials - counts["finished"] - counts["stopped"])

    def next(self) -> list:
        """The trials to run now: those of a driver that was killed, then new ones, as many as are drawn at once."""
        count = min(self.left, self.cell.sweep.draw)
        self.left -= count
        begun = self.study.begun()[:count]
        return begun + [self.study.draw() for _ in range(count - len(begun))]

    def told(self) -> str:
        """How it stands, in a line."""
        line = f"{self.name}: " + ", ".join(f"{count} {name}" for name, count in self.study.counts().items())
        if missing := self.missing():
            line += f", and {missing} of {self.cell.sweep.trials} missing, which the same command draws"
        if finished := self.study.finished():
            best = " ".join(spelled(finished[0].params))
            line += f"; the best has {finished[0].value:.2f} % on dev: {best}"
        return line


class Trials(Cells):
    """See the module; `params` are the search space, and what all trials have."""

    __module__ = "hydra_plugins.trials"  # the only package from which Hydra takes a sweeper

    def sweep(self, arguments: list[str]) -> None:
        """Run what each arm's study lacks; exit with status SOME_FAILED if it still lacks something then."""
        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)
        try:
            with refusals_reported("exp"):
                self._sweep(arguments)
        except InputError as error:
            sys.exit(f"error: {error}")

    def _sweep(self, arguments: list[str]) -> None:
        from local.study import alone

        arms = self.arms(arguments)
        _, cell, _ = arms[0]
        if ranks.count(cell) > 1:
            raise InputError("trainer.devices: a search judges a trial in one process; set it and num_nodes to 1")
        if not cell.halving:
            raise InputError("halving=null: expected the rule that stops trials; with halving.at=[] it stops none")
        first, last, path = stage_number(cell.stage), stage_number(cell.stop_stage), Path(cell.sweep.study)
        if 2 < last < 7:
            raise InputError(f"--stop-stage {STAGES[last]}: a trial ends in its WER on dev; stop at score, or later")
        if first <= 2:
            super().sweep([*arguments, f"stop_stage={min(last, 2)}"])
        if last <= 2:
            return
        if cell.dry_run:
            if first <= 7:
                log.info("to run 3-7 search   %s, to %d trials of each arm", path, cell.sweep.trials)
            if last == 8:
                log.info("to run 8 report     %s", cell.dirs.report)
            return
        short = False
        if first <= 7:
            with alone(path):
                short = self.search([Arm(*one) for one in arms])
        elif not path.exists():
            raise InputError(f"{path}: no such study; run stage 7 (score), which runs the trials, first")
        if last == 8:
            self.report([Arm(*one) for one in arms])
        if short:
            sys.exit(SOME_FAILED)

    def choices(self, params: Mapping[str, str], arguments: list[str]) -> dict[str, list[str]]:
        """As for any sweep, of what is not searched."""
        given = self.given(params, arguments)
        return {key: values(override) for key, override in given.items() if not _searched(override)}

    def arms(self, arguments: list[str]) -> list[tuple[list[str], DictConfig, dict[str, Override]]]:
        """What makes an Arm of each; the space has what the arm has of it."""
        (params,) = self.products
        space = {key: one for key, one in self.given(params, arguments).items() if _searched(one)}
        if not space:
            raise InputError(
                "nothing to search; give a setting several values, or an interval: see conf/sweep/optuna.yaml"
            )
        found = []
        for overrides in itertools.product(*self.choices(params, arguments).values()):
            first = {key: _first(override) for key, override in space.items()}
            kept, cell = self.composition.reduced([*overrides, *first.values()])
            own = {key: space[key] for key, override in first.items() if override in kept}
            found.append(([o for o in kept if o not in first.values()], cell, own))
        return found

    def search(self, arms: list[Arm]) -> bool:
        """Draw, run and tell, until no trial is left to run; return whether an arm has had fewer than it is to have."""
        listed = [self.trial(arm, one.params) for arm in arms for one in arm.study.trials()]
        while batch := [(arm, trial) for arm in arms for trial in arm.next()]:
            cells = [self.trial(arm, trial.params) for arm, trial in batch]
            listed += cells
            name = f"search-{hashlib.sha256(str(arms[0].study.path).encode()).hexdigest()[:8]}"
            listing.write(listed, name)  # of the leaderboard, which shows what runs
            jobs = [[*arm.overrides, *drawn, *WHOLE] for (arm, _), (drawn, _) in zip(batch, cells, strict=True)]
            for (arm, trial), (drawn, cell), ended in zip(batch, cells, self.outcomes(jobs, apart=True), strict=True):
                log.info(
                    "search: %s trial %d, %s: %s",
                    arm.name,
                    trial.number,
                    " ".join(drawn),
                    tell(arm, trial, cell, ended),
                )
        for arm in arms:
            log.info("search: %s", arm.told())
        if nothing := [arm.name for arm in arms if not arm.study.counts()["finished"]]:
            print(f"error: no trial of {', '.join(nothing)} finished; see exp/log/run.log", file=sys.stderr)
            sys.exit(SOME_FAILED)
        return any(arm.missing() for arm in arms)

    def trial(self, arm: Arm, params: dict) -> tuple[list[str], DictConfig]:
        """The settings that were drawn, without those that others leave without a meaning, and the cell."""
        drawn = spelled(params)
        kept, cell = self.composition.reduced([*arm.overrides, *drawn])
        return [override for override in drawn if override in kept], cell

    def report(self, arms: list[Arm]) -> None:
        """Of all trials that came to an end; how many each arm had goes with them."""
        finished, more = [], {}
        for arm in arms:
            for one in arm.study.finished():
                finished.append(self.trial(arm, one.params))
                _, cell = finished[-1]
                more[cell.dirs.score] = {"trial": one.number, "trials": arm.study.counts()}
        if not finished:
            raise InputError(f"{arms[0].study.path}: no trial is finished; run stage 7 (score), which runs them, first")
        cells = listing.write(finished, more=more)
        if self.phase(([self.composition.reduced([*arms[0].overrides, f"cells={cells}"])], 8, 8)):
            sys.exit(1)


def spelled(params: dict) -> list[str]:
    """The settings of a trial as a command line has them, numbers with as many digits as one can read."""
    return [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()]


def tell(arm: Arm, trial, cell: DictConfig, ended: JobReturn) -> str:
    """Tell the study how a trial ended; say it."""
    halving, directory = Halving(cell), cell.dirs.finetune
    if ended.status == JobStatus.COMPLETED:
        halving.record(read_json(Path(directory) / "history.json"))  # of a cell that was there before the search, too
        arm.study.finish(trial, halving.recorded(), ended.return_value)
        return f"{ended.return_value:.2f} % on dev"
    if (why := failure.reason(directory, "stopped")) and (rungs := halving.recorded()):
        arm.study.finish(trial, rungs, None)
        return why
    why = failure.told(ended._return_value)
    arm.study.finish(trial, {}, None, failed=why)
    return f"failed: {why}"


def _searched(override: Override) -> bool:
    """Whether an override spans what is searched; raises InputError unless that is a setting of a training."""
    key = override.get_key_element()
    if (
        key == "arm"
        or not override.is_sweep_override()
        or (override.is_discrete_sweep() and len(values(override)) == 1)
    ):
        return False
    if key.rpartition("@")[2].partition(".")[0] not in SEARCHED:
        raise InputError(f"{override.input_line}: a search is over settings of {', '.join(SEARCHED)}; give one value")
    return True


def _first(override: Override) -> str:
    """An override with one of its values."""
    if override.is_discrete_sweep():
        return values(override)[0]
    return f"{override.get_key_element()}={override.value().start}"


def register() -> None:
    """Make the sweeper known to Hydra."""
    sys.modules[Trials.__module__] = sys.modules[__name__]
    Plugins.instance().register(Trials)
