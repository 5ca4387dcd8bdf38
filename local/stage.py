"""What every stage shares: its lock, its done marker, and the decision whether it must run.

A stage writes into `<dir>.partial`, completes that with `done.json` (its name and configuration, names of the upstream
directories and digests of their markers, sizes and a digest of what it wrote, size and mtime of the outside files it
read, commit, wall time and peak memory), and renames it to `<dir>`. A killed stage leaves a `.partial`, which the next
run clears, or if it is a training with the same inputs, continues; one that fails also leaves its reason, in
`<dir>.failed`. A stale result is moved to `<dir>.stale-<n>`, never deleted.
"""

import json
import logging
import resource
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig

from local import failure
from local.config import plain, signed_keys
from local.errors import InputError, refusals_reported
from local.lock import locked
from local.marker import commit, damage, digest, read_json, read_marker, stamp, write_atomically, written

log = logging.getLogger(__name__)

STAGES = ("download", "prepare", "features", "pretrain", "bottleneck", "finetune", "decode", "score", "report")
# The stage that makes each entry of `dirs`; `frontend` and `unlabeled` point at directories of the others.
MAKER = {
    "audio": "download", "data": "prepare", "features": "features", "unlabeled": "features", "pretrain": "pretrain",
    "bottleneck": "bottleneck", "finetune": "finetune", "lm": "lm", "decode": "decode", "score": "score",
    "report": "report",
}  # fmt: skip
OURS = Path("data/audio")  # where the audio that stage 0 makes lies; any other folder is the user's
PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
PART_OF = {"lm": "decode"}  # what a stage that reads it makes before itself


def stage_number(name: str | int) -> int:
    """0 to 8 for a stage's number or name; raises InputError for anything else."""
    if str(name) in STAGES:
        return STAGES.index(str(name))
    if str(name).isdigit() and int(name) < len(STAGES):
        return int(name)
    raise InputError(f"no stage {str(name)!r}; stages are {', '.join(f'{i} {n}' for i, n in enumerate(STAGES))}")


def _number(name: str) -> int:
    """Of a stage, or of the one that it is a part of."""
    return STAGES.index(PART_OF.get(name, name))


def stages_of(cfg: DictConfig) -> tuple[str, ...]:
    """The names of those that a configuration asks for, in their order."""
    return STAGES[stage_number(cfg.stage) : stage_number(cfg.stop_stage) + 1]


def cell_name(cfg: DictConfig, stage: str = "") -> str:
    """How log lines name a cell, or what its cells share: its corpus in stages 0 to 2."""
    return f"{cfg.corpus.name}{cfg.machine.part}" if stage in STAGES[:3] else f"{cfg.arm.name} seed={cfg.seed}"


@dataclass(frozen=True)
class Stage:
    """A stage as a function of the configuration: `stage(cfg)` runs it if it must."""

    body: Callable
    writes: str
    reads: tuple[str, ...]
    extra: Callable
    check: Callable
    after: Callable
    watched: Callable
    outside: Callable
    resumes: bool

    @property
    def name(self) -> str:
        return MAKER[self.writes]

    def upstream(self, cfg: DictConfig) -> list[str]:
        """The entries of `dirs` that this stage reads; an arm without one sets it to null."""
        return [key for key in self.reads if cfg.dirs[key] is not None]

    def _wanted(self, cfg: DictConfig) -> dict:
        """The configuration and inputs that a current marker records, and by name where they came from."""
        config = {key: plain(cfg, key) for key in signed_keys(cfg, self.writes)} | self.extra(cfg)
        inputs = {key: digest(read_marker(cfg.dirs[key])) for key in self.upstream(cfg)}
        upstream = {key: cfg.dirs[key] for key in self.upstream(cfg)}
        return {"stage": self.name, "upstream": upstream, "config": json.loads(json.dumps(config)), "inputs": inputs}

    def _difference(self, cfg: DictConfig, out: Path, marker: dict) -> str | None:
        """Why `out` with this marker is not what the configuration, its inputs and the files read call for."""
        wanted = self._wanted(cfg)
        for key in sorted(wanted["config"].keys() | marker["config"].keys()):
            if wanted["config"].get(key) != marker["config"].get(key):
                return f"{key} changed"
        for key in self.upstream(cfg):
            if wanted["inputs"].get(key) != marker["inputs"].get(key):
                return f"{cfg.dirs[key]} changed"
        if cut := damage(out, marker):
            return f"{cut} is gone or cut"
        then = marker["files"]
        read = dict.fromkeys([*then, *self.outside(cfg)])  # a folder may have others by now
        now = {path: stamp(path) for path in read} | self.watched(cfg, out)
        return next((f"{path} changed" for path in now if now[path] != then.get(path)), None)

    def state(self, cfg: DictConfig) -> tuple[str, str]:
        """("done" | "to run" | "stale", why), looking at this stage's directory and its upstream markers."""
        out = Path(cfg.dirs[self.writes])
        if self.name == "download" and out.is_dir() and out.parent != OURS:
            return "done", f"{out}, used as it is"
        if (marker := read_marker(out)) is None:
            return "to run", "an unreadable done.json" if (out / "done.json").exists() else "not done yet"
        why = self._difference(cfg, out, marker)
        return ("stale", why) if why else ("done", str(out))

    def plan(self, cfg: DictConfig) -> tuple[str, str]:
        """As `state`, upstream stages included: what a run of everything before would leave to do here."""
        for key in self.upstream(cfg):
            upstream = stage_named(MAKER[key])
            foreign = key == "unlabeled" and cfg.dirs.unlabeled != cfg.dirs.features  # made by another configuration
            if not foreign and (needed := upstream.plan(cfg))[0] != "done":
                return ("stale" if read_marker(cfg.dirs[self.writes]) else "to run"), f"{upstream.name} is {needed[0]}"
        return self.state(cfg)

    def __call__(self, cfg: DictConfig) -> None:
        if cfg.dirs[self.writes] is None:
            return
        for part in self.parts(cfg):
            part(cfg)
        with refusals_reported(f"{cfg.dirs[self.writes]}.partial"):
            if cfg.dry_run:
                state, why = self.plan(cfg)
                if state != "done":
                    self.check(cfg)
                number = _number(self.name)
                log.info("%-6s %d %-10s %s (%s)", state, number, self.name, cfg.dirs[self.writes], why)
                return
            state, why = self.state(cfg)
            if state != "done":
                of_cell = _number(self.name) > 2  # a corpus that is refused leaves nothing behind
                with failure.recorded(Path(cfg.dirs[self.writes])) if of_cell else nullcontext():
                    state, why = self._made(cfg)
                if state != "done":
                    return self.after(cfg)
            self.already(cfg, why)

    def parts(self, cfg: DictConfig) -> list["Stage"]:
        """What this stage runs before itself."""
        return [stage_named(MAKER[key]) for key in self.upstream(cfg) if MAKER[key] in PART_OF]

    def already(self, cfg: DictConfig, why: str) -> None:
        """Say that it was done before."""
        log.info("[%s] %s: done already, %s", cell_name(cfg, self.name), self.name, why)
        self.after(cfg)

    def _made(self, cfg: DictConfig) -> tuple[str, str]:
        """Run what must be; return the state that was found, once nobody else was at it."""
        self.check(cfg)
        for key in self.upstream(cfg):
            if MAKER[key] != "download" or not Path(cfg.dirs[key]).is_dir():
                require(cfg.dirs[key], MAKER[key])
        with locked(Path(cfg.dirs[self.writes]), f"{self.name} of {cell_name(cfg, self.name)}"):
            state, why = self.state(cfg)  # another process may have done it meanwhile
            if state != "done":
                self._run(cfg, why)
        return state, why

    def _run(self, cfg: DictConfig, why: str) -> None:
        out = Path(cfg.dirs[self.writes])
        log.info("[%s] %s: %s (%s)", cell_name(cfg, self.name), self.name, out, why)
        partial = out.with_name(out.name + ".partial")
        marker = read_marker(partial)  # a run killed before its last step leaves nothing else to do
        if marker is None or self._difference(cfg, partial, marker):
            marker = self._make(cfg, partial)
        shutil.rmtree(partial / "checkpoints", ignore_errors=True)
        for spent in (partial / "inputs.json", *partial.glob("*.tmp")):  # .tmp: killed while it wrote a marker
            spent.unlink(missing_ok=True)
        _keep_aside(out)  # now, for what was refused or failed has nothing to put in its place
        partial.rename(out)
        log.info("[%s] %s: done in %.1f s", cell_name(cfg, self.name), self.name, marker["wall_seconds"])

    def _make(self, cfg: DictConfig, partial: Path) -> dict:
        """Fill `partial`; write and return its marker."""
        start = time.monotonic()
        wanted = self._wanted(cfg)
        begun = wanted | {"files": {path: stamp(path) for path in self.outside(cfg)}}
        if not (self.resumes and read_json(partial / "inputs.json") == begun):
            if partial.exists():
                shutil.rmtree(partial)
            partial.mkdir(parents=True)
            write_atomically(partial / "inputs.json", json.dumps(begun))
        try:
            read = self.body(cfg, partial) or []
        except InputError:
            if not (partial / "checkpoints" / "last.ckpt").exists():  # or hours would go for what is soon mended
                shutil.rmtree(partial)
            raise
        except OSError:
            if not self.resumes:
                shutil.rmtree(partial, ignore_errors=True)  # a full disk has room again
            raise
        marker = (
            wanted
            | written(partial)
            | {
                "files": begun["files"] | {path: stamp(path) for path in read} | self.watched(cfg, partial),
                "commit": commit(),
                "wall_seconds": round(time.monotonic() - start, 2),
                "peak_memory_bytes": 1024 * max(resource.getrusage(who).ru_maxrss for who in PROCESSES),
            }
        )
        write_atomically(partial / "done.json", json.dumps(marker, indent=1) + "\n")
        return marker


def require(directory: str | Path, maker: str) -> None:
    """Raise InputError unless stage `maker` completed a directory and all that it wrote is there."""
    again = f"run stage {_number(maker)} ({maker})"
    marker = read_marker(directory)
    for made in (Path(directory), *Path(directory).parents) if marker is None else ():
        if reason := failure.reason(made):
            raise InputError(f"{directory}: needed, but {made} failed: {reason}")
    if marker is None:
        raise InputError(f"{directory}: needed, but not there or not complete; {again} first")
    if cut := damage(Path(directory), marker):
        raise InputError(f"{cut}: gone or cut; {again} again")


def settled(cfg: DictConfig, names: tuple[str, ...]) -> list[tuple[Stage, str]] | None:
    """The stages of these names and their parts, and where each left what it made; None if one of them must run."""
    found = []
    for one in [stage_named(name) for name in names if cfg.dirs[stage_named(name).writes] is not None]:
        for part in (*one.parts(cfg), one):
            try:
                state, why = part.state(cfg)
            except (InputError, OSError):
                return None  # the stage itself will say it
            if state != "done":
                return None
            found.append((part, why))
    return found


def foresee(cfg: DictConfig, decodes: bool) -> None:
    """Raise InputError for what stage 5, and 6 if it `decodes`, would refuse by their settings.

    Before hours of training come to that.
    """
    finetune, decode, lm = map(stage_named, ("finetune", "decode", "lm"))
    first = cfg.dirs.decode if finetune.plan(cfg)[0] == "done" else cfg.dirs.finetune
    try:
        with refusals_reported(first):
            for one in (finetune, decode, lm) if decodes else (finetune,):
                if cfg.dirs[one.writes] is not None and one.plan(cfg)[0] != "done":
                    one.check(cfg)
    except InputError as error:
        failure.record(Path(first), failure.told(error))
        raise


def failed_at(cfg: DictConfig, names: tuple[str, ...], why: str) -> None:
    """Record the reason where a job stood that was to run these stages, and could not do so itself."""
    at = next((name for name in names if settled(cfg, (name,)) is None), names[-1])
    made = cfg.dirs[stage_named(at).writes]
    # A corpus that is refused leaves nothing behind, and a search's end of a trial is no failure.
    if stage_number(at) > 2 and not failure.reason(made, "stopped"):
        failure.record(Path(made), why)


def stage_named(name: str) -> Stage:
    """The stage of local/stages/<name>.py."""
    return import_module(f"local.stages.{name}").run


def stage(
    writes: str,
    reads: tuple[str, ...] = (),
    extra: Callable = lambda cfg: {},
    check: Callable = lambda cfg: None,
    after: Callable = lambda cfg: None,
    watched: Callable = lambda cfg, directory: {},
    outside: Callable = lambda cfg: [],
    resumes: bool = False,
):
    """Make a stage of `body(cfg, partial)`, which fills `partial` and may return the outside files that it read.

    `writes` and `reads` are keys of `cfg.dirs`; `extra(cfg)` gives settings that the directory's name does not sign;
    `check(cfg)` raises InputError before a file is written; `after(cfg)` is called once the directory is there, even
    if nothing had to run. `watched(cfg, directory)` gives, by name, stamps of outside files too many to be listed. A
    stage that `resumes` finds in `partial` what a killed run of the same configuration and inputs left there, and of
    the same outside files, which `outside(cfg)` lists before they are read; what only serves that lies in
    `partial`/checkpoints, and is removed in the end.
    """
    return lambda body: Stage(body, writes, reads, extra, check, after, watched, outside, resumes)


def _keep_aside(out: Path) -> None:
    if not out.exists():
        return
    number = 1
    while (aside := out.with_name(f"{out.name}.stale-{number}")).exists():
        number += 1
    out.rename(aside)
    log.info("kept the former %s as %s", out, aside)
