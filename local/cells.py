"""The cells of a sweep: one arm, seed, label budget and set of overrides each.

A Hydra sweeper over the product of the swept values, or over several products, in which a setting that an arm lacks
leaves that arm as one cell, and cells that would do the same work are one job: jobs are told apart by the directory
that the last of their stages writes. Launching is Hydra's (`hydra/launcher=...`).
"""

import copy
import hashlib
import itertools
import json
import logging
import sys
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import ConfigCompositionException
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, open_dict

from local.config import plain, signature, signed_keys
from local.errors import InputError, refusals_reported
from local.failure import told
from local.marker import write_atomically
from local.stage import MAKER, STAGES, stage_named, stage_number

log = logging.getLogger(__name__)
OWN = (
    "frontend",
    "frontend_rate",
    "layer_decay",
    "thaw",
    "learning_rate",
)  # what an arm may have to itself
SIZE = ("width", "layers")  # the settings that say how large a recognizer is
SOME_FAILED = 3  # the exit status after which run.sh goes on with the other cells
ROW = ("arm", "seed")  # what a report tells the cells of an entry apart by, without their settings


class Killed(InputError):
    """Jobs were lost with the process of one of them."""

    def __init__(self) -> None:
        super().__init__("a process of this run was killed, often for want of memory; run again, with fewer jobs")


class Cells(Sweeper):
    """See the module; `params` are the swept values of a product, or a list of products.

    A setting on the command line replaces its values in every one of them.
    """

    __module__ = "hydra_plugins.cells"  # the only package from which Hydra takes a sweeper

    def __init__(self, params: dict[str, str] | list[dict[str, str]]) -> None:
        self.products = [params] if isinstance(params, Mapping) else params

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        """Keep what launching needs; the launcher itself waits until the number of jobs is known."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run every distinct job; exit with status 1 or SOME_FAILED, after all have ended, if any of them failed."""
        try:
            with refusals_reported("exp/cells"):
                jobs = self.jobs(arguments)
        except InputError as error:
            sys.exit(f"error: {error}")
        if not jobs:
            return []
        try:
            returns = self.launched(jobs)
        except InputError as error:
            sys.exit(f"error: {error}")
        failed = [r for r in returns if r.status != JobStatus.COMPLETED]
        for message in dict.fromkeys(f"error: {told(r._return_value)}" for r in failed):
            print(message, file=sys.stderr)
        if failed and self.several:
            count = f"{len(failed)} of {len(jobs)} jobs failed"
            print(f"error: {count}; the same command runs what is missing, and no more", file=sys.stderr)
        if failed:
            sys.exit(SOME_FAILED if self.several else 1)
        return returns

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
            return launcher.launch(jobs, initial_job_idx=0)
        except RuntimeError as error:
            if not isinstance(error, BrokenExecutor) and type(error).__name__ != "UncompletedJobError":  # submitit's
                raise
            raise Killed from None

    def jobs(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each distinct job; writes the list of cells of each report."""
        products = [self.choices(params, arguments) for params in self.products]
        asked = [list(job) for choices in products for job in itertools.product(*choices.values())]
        cells = [self.reduced(job) for job in asked]
        first, last = stage_number(cells[0][1].stage), stage_number(cells[0][1].stop_stage)
        if first > last:
            raise InputError(f"stop stage {STAGES[last]} comes before stage {STAGES[first]}; exchange them")
        written = next(key for key, stage in MAKER.items() if stage == STAGES[last])
        jobs = {}
        for cell, cfg in cells:
            if cfg.dirs[written]:
                jobs.setdefault(str(cfg.dirs[written]), cell)
        if STAGES[last] == "report" and cells[0][1].dry_run:
            # Only here are all cells at hand, to say whether what the report reads will have changed.
            plans = [stage_named("score").plan(cfg) for _, cfg in cells]
            if any(state != "done" for state, _ in plans):
                why = next(why for state, why in plans if state != "done")
                print(f"to run 8 report     {cells[0][1].dirs.report} ({why})")  # no job, hence no job's log
                return []
        # Stages 0 to 2 are of a corpus: no cell goes on without them.
        self.several = last > 2 and len(asked) > 1
        if last > 2 and not cells[0][1].dry_run:
            common = set(asked[0]).intersection(*asked)
            named = [([o for o in cell if o not in common and _key(o) not in ROW], cfg) for cell, cfg in cells]
            reports = dict.fromkeys(cfg.dirs.report for _, cfg in cells)
            lists = {name: write_list([one for one in named if one[1].dirs.report == name]) for name in reports}
            if STAGES[last] == "report":
                return [[*cell, f"cells={lists[directory]}"] for directory, cell in jobs.items()]
        return list(jobs.values())

    def choices(self, params: Mapping[str, str], arguments: list[str]) -> dict[str, list[str]]:
        """For each key its `key=value` overrides, one for each swept value; arguments replace `params`."""
        return {key: values(override) for key, override in self.given(params, arguments).items()}

    def given(self, params: Mapping[str, str], arguments: list[str]) -> dict[str, Override]:
        """For each key what is said of it; arguments replace `params`."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        said = [f"{k}={'null' if v is None else v}" for k, v in params.items()]  # as Hydra spells it
        return {override.get_key_element(): override for override in parser.parse_overrides([*said, *arguments])}

    def reduced(self, overrides: list[str]) -> tuple[list[str], DictConfig]:
        """A cell's overrides without the settings of an autoencoder that its arm lacks, and its configuration."""
        try:
            return overrides, self.compose(overrides)
        except ConfigCompositionException:
            kept = [o for o in overrides if not o.startswith(("autoencoder.", "encoder@autoencoder."))]
            for override in overrides:
                try:
                    if override not in kept:
                        self.compose([*kept, override])
                        kept.append(override)
                except ConfigCompositionException:
                    log.debug("%s: %s leaves it as it is", kept, override)
        try:
            return kept, self.compose(kept)
        except ConfigCompositionException as error:
            names = " ".join(o for o in kept if "." not in _key(o))
            first = str(error).splitlines()[0]
            raise InputError(f"{names}: {first} That choice has no such setting; see conf/") from None

    def compose(self, overrides: list[str]) -> DictConfig:
        """One cell's configuration."""
        return self.hydra_context.config_loader.load_sweep_config(self.config, overrides)


def values(override: Override) -> list[str]:
    """A `key=value` for each value that an override sweeps, or its one."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise InputError(f"{override.input_line}: an interval; list the values, as in {key}=1,2,3")
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


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
        single = value and "(" not in value and "," not in value.partition("[")[0]
        needed = key.startswith(("hydra", "sweep", "recipe", "machine", "+", "~"))  # by the sweep's own configuration
        found.append(f"{key}=choice({value})" if single and not needed else argument)
    return found


def _key(override: str) -> str:
    return override.partition("=")[0]


def settings(cfg: DictConfig) -> dict:
    """All that the directories of a cell sign."""
    signed = {key for name in MAKER if cfg.dirs[name] for key in signed_keys(cfg, name)}
    return {key: plain(cfg, key) for key in sorted(signed) if not key.startswith("dirs.")}


def digests(cfg: DictConfig) -> dict[str, str]:
    """Of what two arms must have in common to be compared, as local/results.py compares them.

    `shared` is all but the front end and the learning rates, which are tuned for each arm; `unsized` leaves out the
    recognizer's size too, for the arm whose recognizer is larger on purpose, and `untimed` its updates, for the arm
    that trains longer on purpose; `front_end` is the front end but for how long, and on how much audio, it was trained.
    """
    recognizer = {k: v for k, v in plain(cfg, "recognizer").items() if k not in OWN}
    unsized = {k: v for k, v in recognizer.items() if k not in SIZE}
    unsized["encoder"] = {k: v for k, v in recognizer["encoder"].items() if k not in SIZE}
    untimed = {k: v for k, v in recognizer.items() if k != "updates"}
    common = {key: plain(cfg, key) for key in ("labels", "units", "decoder", "dirs.features")}
    autoencoder = {k: v for k, v in plain(cfg, "autoencoder").items() if k not in ("trained", "updates")}
    unlabeled = {k: v for k, v in plain(cfg, "unlabeled").items() if k != "hours"}
    front_end = {"autoencoder": autoencoder, "unlabeled": unlabeled, "frontend": cfg.recognizer.frontend}
    alike = {"shared": recognizer, "unsized": unsized, "untimed": untimed}
    digests = {name: common | {"recognizer": settings} for name, settings in alike.items()}
    node = OmegaConf.create(digests | {"front_end": front_end})
    return {key: signature(node, key) for key in node}


def write_list(named: list[tuple[list[str], DictConfig]], name: str = "", more: Mapping[str, dict] = {}) -> str:
    """Write what report and leaderboard need of each cell to a file of that name, or named by its content; return it.

    A cell comes with the swept overrides that made it; of several that made the same, those that they share. `more` has
    what else is to be said of some, by their score directories.
    """
    cells, made = {}, {}
    for overrides, cfg in named:
        dirs = OmegaConf.to_container(cfg.dirs, resolve=True)
        made[dirs["score"]] = [o for o in made.get(dirs["score"], overrides) if o in overrides]
        seedless = copy.deepcopy(cfg)
        with open_dict(seedless):
            seedless.seed = None  # and with it what follows the seed, as `labels.seed` may
        cells[dirs["score"]] = {
            # It sees all that a speaker of test says before it decodes the first word, and must be told from others.
            "corpus": cfg.corpus.name + ", transductive CMVN per speaker" * (cfg.features.cmvn == "speaker"),
            "label_hours": None if cfg.labels.hours == "all" else cfg.labels.hours,
            "label_subset": seedless.labels.seed,
            "reads_unlabeled": bool(dirs["pretrain"]) and plain(cfg, "autoencoder").get("trained", True),
            "arm": cfg.arm.name,
            "frontend": cfg.recognizer.frontend,
            "settings": " ".join(made[dirs["score"]]),
            "signature": signature(seedless, "dirs.decode"),
            **digests(seedless),
            "seed": cfg.seed,
            "decoder": cfg.decoder.name,
            "rate": cfg.units.rate,
            "best": plain(cfg, "recognizer").get("best", "wer"),
            "splits": OmegaConf.to_container(cfg.decoder.splits),
            "dirs": dirs,
            "config": settings(cfg),
        } | more.get(dirs["score"], {})
    text = json.dumps(list(cells.values()), indent=1) + "\n"
    path = Path("exp/cells") / f"{name or hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
    return str(path)
