"""The cells of a sweep: one arm, seed, label budget and set of overrides each.

A Hydra sweeper over the product of the swept values, or over several products, in which a setting that an arm lacks
leaves that arm as one cell, and cells that would do the same work are one job: jobs are told apart by the directory
that the last of their stages writes. Launching is Hydra's (`hydra/launcher=...`), in four phases; what is done already
is not launched.
"""

import copy
import itertools
import logging
import re
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, Transformer
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig
from omegaconf.errors import InterpolationKeyError

from local import listing
from local.composition import Composition
from local.config import check_whole, named
from local.errors import InputError, refusals_reported
from local.failure import told
from local.stage import MAKER, STAGES, cell_name, failed_at, foresee, settled, stage_named, stage_number, stages_of

log = logging.getLogger(__name__)
# First and last stage: each corpus once, each autoencoder once, each recognizer, the comparison.
PHASES = ((0, 2), (3, 4), (5, 7), (8, 8))
SOME_FAILED = 3  # the exit status if the other cells of a sweep went on
SELECTED = ("arm", "labels.hours")  # settings by which the command line chooses among a sweep's products
NEEDED = ("hydra", "sweep", "recipe", "machine", "pretrained", "+", "~")  # settings of the sweep's own configuration
ROW = ("arm", "seed")  # what a report tells the cells of an entry apart by, without their settings
Cell = tuple[list[str], DictConfig]  # its overrides, and its configuration


class Killed(InputError):
    """Jobs were lost with the process of one of them."""

    def __init__(self, what: str = "a process of this run") -> None:
        super().__init__(f"{what} was killed, often for want of memory; run again, with fewer jobs")


class Cells(Sweeper):
    """See the module; `params` are the swept values of a product, or a list of products.

    A setting on the command line replaces its values in every one of them; but of SELECTED, what some of them have is
    taken from these, and the others are left out.
    """

    __module__ = "hydra_plugins.cells"  # the only package from which Hydra takes a sweeper

    def __init__(self, params: dict[str, str] | list[dict[str, str]] | None) -> None:
        self.params = params

    @property
    def products(self) -> list[dict[str, str]]:
        """What is swept; raises InputError if that is nothing."""
        if not self.params:
            chosen = self.config.hydra.runtime.choices.sweep
            raise InputError(
                f"conf/sweep/{chosen}.yaml sets no hydra.sweeper.params, which are the values to sweep; its first line "
                "is to be '# @package _global_'"
            )
        return [self.params] if isinstance(self.params, Mapping) else self.params

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        """Keep what launching needs; the launcher itself waits until the number of jobs is known."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.composition = Composition(hydra_context.config_loader, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run every distinct job of each phase; exit with status 1 or SOME_FAILED, after all have ended, if any failed.

        Nothing goes on without its corpus, and there is no report if a cell failed.
        """
        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)
        try:
            for key in ("jobs", "shares", "workers"):
                check_whole(f"machine.{key}", self.config.machine[key])
            with refusals_reported("exp/cells"):
                cells, first, last = self.cells(arguments)
            status = self.run(cells, first, last)
        except InputError as error:
            sys.exit(f"error: {error}")
        except InterpolationKeyError as error:  # an unknown word where a file of conf/sweep has a table of them
            sys.exit(f"error: {str(error).splitlines()[0]}; look at conf/sweep/ for what there is")
        if status:
            sys.exit(status)

    def run(self, cells: list[Cell], first: int, last: int) -> int:
        """Run stages, phase after phase; return the exit status."""
        status, early = 0, set()
        for begin, end in ((max(first, begin), min(last, end)) for begin, end in PHASES):
            if begin > end or (status and STAGES[end] == "report"):
                continue
            count = self.shared(cells, begin) if end == 2 else ""
            if begin in (3, 4) and last >= 5 and not cells[0][1].dry_run:
                for _, cfg in _jobs(cells, "decode"):
                    foresee(cfg, decodes=last >= 6)
            groups = [(cells, begin, end)]
            if end == 4 and last > 4 and not cells[0][1].dry_run:
                # A processor that pretraining leaves idle has recognizers to train that do not wait for it.
                ready = _ready(cells, STAGES[begin:5])
                early = {cfg.dirs.score for _, cfg in ready}
                groups.append((ready, 5, min(last, 7)))
            elif 5 <= begin <= 7:
                groups = [([cell for cell in cells if cell[1].dirs.score not in early], begin, end)]
            if count := count or self.phase(*groups):
                status = SOME_FAILED if end > 2 and self.several else 1
            if count and status == SOME_FAILED:
                print(f"error: {count}; the same command runs what is missing, and no more", file=sys.stderr)
            if status == 1:
                break
        return status

    def cells(self, arguments: list[str]) -> tuple[list[Cell], int, int]:
        """All that were asked for, with the first and last stage; writes the list of each report, but for a dry run."""
        products = self.selected(arguments)
        asked = [list(job) for choices in products for job in itertools.product(*choices.values())]
        cells = [self.composition.reduced(job) for job in asked]
        kept = {override for overrides, _ in cells for override in overrides}
        if any(cfg.dirs.pretrain for _, cfg in cells):  # `none` alone lacks all of them
            for lost in sorted({override for job in asked for override in job} - kept):
                log.warning("%s: no arm here has such a setting, so it does nothing", lost)
        cfg = cells[0][1]
        first, last = stage_number(cfg.stage), stage_number(cfg.stop_stage)
        if first > last:
            raise InputError(f"stop stage {STAGES[last]} comes before stage {STAGES[first]}; exchange them")
        self.several = len(asked) > 1
        roots: dict[str, str] = {}
        for _, cfg in cells:
            root = roots.setdefault(named(cfg).dirs.data, cfg.corpus.root)
            if root != cfg.corpus.root:
                raise InputError(f"corpus.root={root},{cfg.corpus.root}: one data directory; give each a corpus.name")
        return cells if last <= 2 else _listed(cells, set(asked[0]).intersection(*asked)), first, last

    def shared(self, cells: list[Cell], first: int) -> str:
        """The stages up to 2, in which several jobs compute the features; what there is of these goes on in one."""
        count, shares = self.config.machine.shares, []
        if count < 2 or cells[0][1].dry_run:
            return ""
        if failed := self.phase((cells, first, 1)) if first < 2 else "":
            return failed
        for overrides, cfg in _jobs(cells, "features"):
            begun = Path(f"{cfg.dirs.features}.partial")
            if begun.exists():
                log.info("[%s] features: %s was begun by one job, and goes on in one", cfg.corpus.name, begun)
            elif settled(cfg, ("features",)) is None:
                parts = ([*overrides, f"machine.part=.{number}-of-{count}"] for number in range(1, count + 1))
                shares += map(self.composition.reduced, parts)
        return self.phase((shares, 2, 2)) if shares else ""

    def phase(self, *groups: tuple[list[Cell], int, int]) -> str:
        """Run what stages have to do, print why jobs failed and return how many did, in words.

        A group are cells, and their first and last stage; the jobs of all of them run side by side.
        """
        failures, left, count = [], [], 0
        for cells, first, last in groups:
            jobs, stages = _jobs(cells, STAGES[last]), STAGES[first : last + 1]
            count += len(jobs)
            if cells and cells[0][1].dry_run:
                failures += _dry(cells, [cfg for _, cfg in jobs], stages)
            else:
                more = [f"stage={first}", f"stop_stage={last}"]
                left += [[*job, *more] for job in _apart([job for job in jobs if not _done(job[1], stages)])]
        returns = self.outcomes(left) if left else []
        failures += [told(ended._return_value) for ended in returns if ended.status != JobStatus.COMPLETED]
        for message in dict.fromkeys(failures):
            print(f"error: {message}", file=sys.stderr)
        return f"{len(failures)} of {count} jobs failed" if failures else ""

    def outcomes(self, jobs: list[list[str]], apart: bool = False) -> list[JobReturn]:
        """What became of each job; if a process was killed, of each half by itself, to see whose it was."""
        try:
            return self.launched(jobs, apart)
        except Killed:
            if half := len(jobs) // 2:
                return self.outcomes(jobs[:half], apart=True) + self.outcomes(jobs[half:], apart=True)
            _, cfg = self.composition.reduced(jobs[0])
            stages = stages_of(cfg)
            error = Killed(f"[{cell_name(cfg, stages[-1])}] its process")
            failed_at(cfg, stages, str(error))
            return [JobReturn(jobs[0], cfg, status=JobStatus.FAILED, _return_value=error)]

    def launched(self, jobs: list[list[str]], apart: bool = False) -> list[JobReturn]:
        """What became of each job; raises Killed, or the InputError of a cluster's launcher.

        `apart`: where jobs run in processes of their own, a single one does too.
        """
        config = copy.deepcopy(self.config)
        if asked := config.hydra.launcher.get("n_jobs"):  # joblib's; one job needs no second process
            wanted = max(len(jobs), 2 if apart else 1)
            config.hydra.launcher.n_jobs = min(asked if asked > 0 else config.machine.jobs, wanted)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config
        )
        try:
            every = len(jobs)
            if config.hydra.launcher._target_.endswith(".LocalLauncher"):  # submitit's starts all that it gets
                every = config.machine.jobs
            parts = [jobs[begin : begin + every] for begin in range(0, len(jobs), every)]
            return [ended for part in parts for ended in launcher.launch(part, initial_job_idx=0)]
        except RuntimeError as error:
            if not isinstance(error, BrokenExecutor) and type(error).__name__ != "UncompletedJobError":  # submitit's
                raise
            raise Killed from None

    def selected(self, arguments: list[str]) -> list[dict[str, list[str]]]:
        """The products, for each key its `key=value` overrides; raises InputError if none is left."""
        replaced = [self.choices(params, arguments) for params in self.products]
        own, said = [self.choices(params, []) for params in self.products], self.choices({}, arguments)
        for key in SELECTED:
            wanted, known = {*said.get(key, ())}, {value for choices in own for value in choices.get(key, ())}
            if wanted and wanted <= known:
                for choices, before in zip(replaced, own, strict=True):
                    choices[key] = [value for value in before.get(key, choices[key]) if value in wanted]
        left = [choices for choices in replaced if all(choices.values())]
        if not left:
            wanted = " ".join(value for key in SELECTED for value in said.get(key, ()))
            raise InputError(
                f"{wanted}: cells of the sweep have each of these, but none has them together; ask for less"
            )
        return left

    def choices(self, params: Mapping[str, str], arguments: list[str]) -> dict[str, list[str]]:
        """For each key its `key=value` overrides, one for each swept value; arguments replace `params`."""
        return {key: values(override) for key, override in self.given(params, arguments).items()}

    def given(self, params: Mapping[str, str], arguments: list[str]) -> dict[str, Override]:
        """For each key what is said of it; arguments replace `params`."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        said = [f"{k}={'null' if v is None else v}" for k, v in params.items()]  # as Hydra spells it
        return {override.get_key_element(): override for override in parser.parse_overrides([*said, *arguments])}


def values(override: Override) -> list[str]:
    """A `key=value` for each value that an override sweeps, or its one."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise InputError(f"{override.input_line}: an interval; list the values, as in {key}=1,2,3")
    return [_spelled(key, value) for value in override.sweep_iterator(transformer=Transformer.identity)]


def _spelled(key: str, value: object) -> str:
    """An override that Hydra can read, for what it has read of a sweep."""
    text = f"{key}={Override._get_value_element_as_str(value)}"
    try:
        OverridesParser.create().parse_override(text)
    except HydraException:  # letters that only quotes can hold, which a choice has lost
        return f"{key}={QuotedString(str(value), Quote.double).with_quotes()}"
    return text


def _listed(cells: list[Cell], common: set[str]) -> list[Cell]:
    """Write the list of each report, and name it in its cells; `common` is what was asked for in all of them."""
    reports: dict[str, list[Cell]] = {}
    for overrides, cfg in cells:
        swept = [o for o in overrides if o not in common and o.partition("=")[0] not in ROW]
        reports.setdefault(cfg.dirs.report, []).append((swept, cfg))
    paths = {report: listing.write(listed) for report, listed in reports.items()}
    for _, cfg in cells:
        cfg.cells = paths[cfg.dirs.report]
    return [([*overrides, f"cells={cfg.cells}"], cfg) for overrides, cfg in cells]


def _jobs(cells: list[Cell], stage: str) -> list[Cell]:
    """One for each directory that a stage writes."""
    written = next(key for key, maker in MAKER.items() if maker == stage)
    jobs: dict[str, Cell] = {}
    for cell in cells:
        if cell[1].dirs[written]:
            jobs.setdefault(cell[1].dirs[written], cell)
    return list(jobs.values())


def _ready(cells: list[Cell], stages: tuple[str, ...]) -> list[Cell]:
    """Those whose front ends leave these stages nothing to do."""
    fronts: dict[tuple, bool] = {}
    for _, cfg in cells:
        front = (cfg.dirs.pretrain, cfg.dirs.bottleneck)
        if front not in fronts:
            fronts[front] = settled(cfg, stages) is not None
    return [cell for cell in cells if fronts[cell[1].dirs.pretrain, cell[1].dirs.bottleneck]]


def _apart(jobs: list[Cell]) -> list[list[str]]:
    """The overrides of each; those that share a recognizer with one before come last, or they would wait for it."""
    before, ranks = Counter(), []
    for _, cfg in jobs:
        ranks.append(before[cfg.dirs.finetune])
        before[cfg.dirs.finetune] += 1
    return [overrides for _, (overrides, _) in sorted(zip(ranks, jobs, strict=True), key=lambda ranked: ranked[0])]


def _done(cfg: DictConfig, stages: tuple[str, ...]) -> bool:
    """Whether nothing is left to do; says so."""
    try:
        with refusals_reported(cfg.dirs.published):
            if (there := settled(cfg, stages)) is None:
                return False
            for one, why in there:
                one.already(cfg, why)
    except InputError:
        return False  # the stage itself will say it
    return True


def _dry(cells: list[Cell], jobs: list[DictConfig], stages: tuple[str, ...]) -> list[str]:
    """Say what stages would do; return the refusals."""
    failures, why = [], ""
    if report := stages[-1] == "report":
        # Only here are all cells at hand, to say whether what the report reads will have changed.
        plans = (stage_named("score").plan(cfg) for _, cfg in cells)
        why = next((why for state, why in plans if state != "done"), "")
    for cfg in jobs:
        if report and (why or not Path(cfg.cells).exists()):
            log.info("to run 8 report     %s (%s)", cfg.dirs.report, why or "not done yet of these cells")
            continue
        try:
            for name in stages:
                stage_named(name)(cfg)
        except InputError as error:
            failures.append(told(error))
    return failures


def register() -> None:
    """Make the sweeper known to Hydra, here and in the workers that unpickle Hydra's state."""
    sys.modules[Cells.__module__] = sys.modules[__name__]
    Plugins.instance().register(Cells)


def postponed(arguments: list[str]) -> list[str]:
    """The arguments, with `key=choice(value)` for a single value.

    Hydra first composes one configuration for the whole sweep, with what is not swept; the default arm may lack a
    setting that is meant for another one.
    """
    found = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        single = value not in ("", "null") and "(" not in value and "," not in value.partition("[")[0]
        single = single or re.fullmatch(r"\"[^\"]*\"|'[^']*'", value)
        needed = key.startswith(NEEDED)
        found.append(f"{key}=choice({value})" if single and not needed else argument)
    return found
