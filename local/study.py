"""What a search has tried for an arm, and what came of it: an Optuna study, each arm's in one SQLite file.

https://optuna.readthedocs.io
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from hydra.core.override_parser.types import Override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from local.errors import InputError
from local.lock import lock_of, seized

optuna.logging.set_verbosity(optuna.logging.WARNING)
ENDED = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


def distribution(override: Override) -> BaseDistribution:
    """Of the values that Hydra's `a,b,c`, `interval(...)` or `tag(log,interval(...))` allow."""
    if not override.is_interval_sweep():
        return CategoricalDistribution([*override.sweep_string_iterator()])
    value = override.value()
    whole = isinstance(value.start, int) and isinstance(value.end, int)
    try:
        return (IntDistribution if whole else FloatDistribution)(value.start, value.end, log="log" in value.tags)
    except ValueError as error:
        raise InputError(f"{override.input_line}: {error}") from None


def _words(override: Override) -> str:
    """What a distribution allows, always written alike."""
    if not override.is_interval_sweep():
        return ",".join(override.sweep_string_iterator())
    value = override.value()
    interval = f"interval({value.start},{value.end})"
    return f"tag(log,{interval})" if "log" in value.tags else interval


class Study:
    """The study of an arm in the file `path`, over a `space` of overrides by key.

    Raises InputError if the study there has another space, or was made with other `settings` than these.
    """

    def __init__(self, path: Path, arm: str, space: dict[str, Override], settings: dict) -> None:
        self.path, self.arm = path, arm
        self.space = {key: distribution(override) for key, override in space.items()}
        about = {
            "space": {key: _words(override) for key, override in space.items()},
            "settings": json.loads(json.dumps(settings)),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._kept():
            self.study = optuna.create_study(
                storage=RDBStorage(f"sqlite:///{path}"), study_name=arm, direction="minimize", load_if_exists=True
            )
            for what, wanted in about.items():
                found = self.study.user_attrs.get(what)
                if found is None:
                    self.study.set_user_attr(what, wanted)
                elif found != wanted:
                    key = next(key for key in sorted(found | wanted) if found.get(key) != wanted.get(key))
                    kind = "another search space" if what == "space" else "trials with other settings"
                    then, now = (one.get(key, "one value") for one in (found, wanted))
                    raise InputError(
                        f"{path}: a study of {arm} in {kind}: {key} was {then}, and is {now}; give it what it was, or "
                        "begin another study: sweep.study=FILE"
                    )

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Raises InputError if there is no database, or that of another version of Optuna, or no room."""
        try:
            yield
        except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            cause = error.__cause__ if isinstance(error, StorageInternalError) else error
            why = str(getattr(cause, "orig", cause)).splitlines()[0]
            raise InputError(
                f"{self.path}: no study can be kept there ({why}); mend that and run again, or name another: "
                "sweep.study=FILE"
            ) from None

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Those in one of the states, or all, as they were drawn."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def finished(self) -> list[FrozenTrial]:
        """Those that came to the end, the best on dev first."""
        return sorted(self.trials(TrialState.COMPLETE), key=lambda trial: trial.value)

    def counts(self) -> dict[str, int]:
        """How many are finished, stopped and failed."""
        return {name: len(self.trials(state)) for name, state in ENDED.items()}

    def begun(self) -> list[Trial]:
        """Those that nobody is at any more: their driver was killed."""
        left = []
        for trial in self.trials(TrialState.RUNNING):
            if trial.params.keys() == self.space.keys():
                left.append(Trial(self.study, trial._trial_id))  # Optuna has no other way to go on with one
            else:
                self.finish(Trial(self.study, trial._trial_id), {}, None, "its driver was killed while it was drawn")
        return left

    def draw(self) -> Trial:
        """A new trial, which follows from those before it; the first ones are as random, and the same, in each arm."""
        self.study.sampler = TPESampler(seed=len(self.trials()))  # Bergstra et al. 2011
        with self._kept():
            return self.study.ask(self.space)

    def finish(self, trial: Trial, rungs: dict[int, float], wer: float | None, failed: str = "") -> None:
        """A trial has ended, with a WER on dev in percent, or stopped at the last rung, or failed for a reason."""
        state = TrialState.FAIL if failed else TrialState.PRUNED if wer is None else TrialState.COMPLETE
        with self._kept():
            for step, best in rungs.items():
                trial.report(best, step)
            if failed:
                trial.set_user_attr("reason", failed)
            self.study.tell(trial, wer, state)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """No other sweep draws from the studies in a file meanwhile; raises InputError if one does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with seized(lock_of(path)) as free:
        if not free:
            raise InputError(f"{path}: another sweep is at this study; wait for it, or begin another: sweep.study=FILE")
        yield
