"""What every stage shares: its lock, its done marker, and the decision whether it must run.

A stage writes into `<dir>.partial`, renames that to `<dir>`, and last writes `<dir>/done.json`: configuration,
digests of the upstream markers, sizes of what it wrote, size and mtime of the outside files it read, commit,
wall time and peak memory. A killed stage leaves a `.partial`, which the next run clears, or if
it is a training with the same inputs, continues. A stale result is moved to `<dir>.stale-<n>`, never deleted.
"""

import fcntl
import hashlib
import json
import logging
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig

from local.config import plain, signed_keys
from local.errors import InputError

log = logging.getLogger(__name__)

STAGES = ("download", "prepare", "features", "pretrain", "bottleneck", "finetune", "decode", "score", "report")
# The stage that makes each entry of `dirs`; `frontend` and `unlabeled` point at directories of the others.
MAKER = {
    "audio": "download", "data": "prepare", "features": "features", "unlabeled": "features", "pretrain": "pretrain",
    "bottleneck": "bottleneck", "finetune": "finetune", "decode": "decode", "score": "score", "report": "report",
}  # fmt: skip


def stage_number(name: str | int) -> int:
    """0 to 8 for a stage's number or name; raises InputError for anything else."""
    if str(name) in STAGES:
        return STAGES.index(str(name))
    if str(name).isdigit() and int(name) < len(STAGES):
        return int(name)
    raise InputError(f"no stage {str(name)!r}; stages are {', '.join(f'{i} {n}' for i, n in enumerate(STAGES))}")


def cell_name(cfg: DictConfig, stage: str = "") -> str:
    """How log lines name a cell, or what its cells share: its corpus in stages 0 to 2."""
    return cfg.corpus.name if stage in STAGES[:3] else f"{cfg.arm.name} seed={cfg.seed}"


def read_marker(directory: str | Path) -> dict | None:
    """The done marker of a directory, or None if there is none or it was cut."""
    try:
        return json.loads((Path(directory) / "done.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def digest(marker: dict | None) -> str | None:
    """What downstream stages compare: everything in a marker but when, how fast and at which commit."""
    if marker is None:
        return None
    kept = {key: marker[key] for key in ("config", "inputs", "files", "outputs")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` in one step, so that no reader sees half of it."""
    aside = path.with_name(path.name + ".tmp")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _stamp(path: str) -> list[int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _commit() -> str | None:
    """The repository's commit, with a `+` if tracked files differ from it."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False).returncode
    return head.stdout.strip() + ("+" if changed else "")


@dataclass(frozen=True)
class Stage:
    """A stage as a function of the configuration: `stage(cfg)` runs it if it must."""

    body: Callable
    writes: str
    reads: tuple[str, ...]
    extra: Callable
    after: Callable
    resumes: bool

    @property
    def name(self) -> str:
        return MAKER[self.writes]

    def upstream(self, cfg: DictConfig) -> list[str]:
        """The entries of `dirs` that this stage reads; an arm without one sets it to null."""
        return [key for key in self.reads if cfg.dirs[key] is not None]

    def _wanted(self, cfg: DictConfig) -> dict:
        """The configuration and inputs that a current marker records."""
        config = {key: plain(cfg, key) for key in signed_keys(cfg, self.writes)} | self.extra(cfg)
        inputs = {key: digest(read_marker(cfg.dirs[key])) for key in self.upstream(cfg)}
        return {"config": json.loads(json.dumps(config)), "inputs": inputs}

    def state(self, cfg: DictConfig) -> tuple[str, str]:
        """("done" | "to run" | "stale", why), looking at this stage's directory and its upstream markers."""
        out = Path(cfg.dirs[self.writes])
        marker, wanted = read_marker(out), self._wanted(cfg)
        if marker is None and self.name == "download" and out.is_dir():
            return "done", f"{out}, used as it is"
        if marker is None:
            return "to run", "an unreadable done.json" if (out / "done.json").exists() else "not done yet"
        for key in sorted(wanted["config"].keys() | marker["config"].keys()):
            if wanted["config"].get(key) != marker["config"].get(key):
                return "stale", f"{key} changed"
        for key in self.upstream(cfg):
            if wanted["inputs"].get(key) != marker["inputs"].get(key):
                return "stale", f"{cfg.dirs[key]} changed"
        for path, size in marker["outputs"].items():
            if (_stamp(str(out / path)) or [None])[0] != size:
                return "stale", f"{out / path} is gone or cut"
        for path, stamp in marker["files"].items():
            if _stamp(path) != stamp:
                return "stale", f"{path} changed"
        return "done", str(out)

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
        if cfg.dry_run:
            state, why = self.plan(cfg)
            log.info("%-6s %d %-10s %s (%s)", state, STAGES.index(self.name), self.name, cfg.dirs[self.writes], why)
            return
        for key in self.upstream(cfg):
            given = MAKER[key] == "download" and Path(cfg.dirs[key]).is_dir()
            if not given and read_marker(cfg.dirs[key]) is None:
                raise InputError(
                    f"{cfg.dirs[key]}: stage {self.name} reads this and it is not there; "
                    f"run stage {STAGES.index(MAKER[key])} ({MAKER[key]}) first"
                )
        if self.name == "download" and (state := self.state(cfg))[0] == "done":
            log.info("[%s] %s: done already, %s", cfg.corpus.name, self.name, state[1])
            return  # a folder of the user's own may not be ours to write beside
        with locked(Path(cfg.dirs[self.writes]), f"{self.name} of {cell_name(cfg, self.name)}"):
            state, why = self.state(cfg)
            if state == "done":
                log.info("[%s] %s: done already, %s", cell_name(cfg, self.name), self.name, why)
            else:
                self._run(cfg, state, why)
        self.after(cfg)

    def _run(self, cfg: DictConfig, state: str, why: str) -> None:
        out = Path(cfg.dirs[self.writes])
        log.info("[%s] %s: %s (%s)", cell_name(cfg, self.name), self.name, out, why)
        start = time.monotonic()
        wanted = self._wanted(cfg)
        if state == "stale" or (out.exists() and read_marker(out) is None):
            _keep_aside(out)
        partial = out.with_name(out.name + ".partial")
        if partial.exists() and not (self.resumes and _read_json(partial / "inputs.json") == wanted):
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
        write_atomically(partial / "inputs.json", json.dumps(wanted))
        try:
            read = self.body(cfg, partial) or []
        except InputError:
            shutil.rmtree(partial)
            raise
        (partial / "inputs.json").unlink()
        files = sorted(p for p in partial.rglob("*") if p.is_file() and "wandb" not in p.parts)
        marker = wanted | {
            "files": {path: _stamp(path) for path in read},
            "outputs": {p.relative_to(partial).as_posix(): p.stat().st_size for p in files},
            "commit": _commit(),
            "wall_seconds": round(time.monotonic() - start, 2),
            "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }
        partial.rename(out)
        write_atomically(out / "done.json", json.dumps(marker, indent=1) + "\n")
        log.info("[%s] %s: done in %.1f s", cell_name(cfg, self.name), self.name, marker["wall_seconds"])


def stage_named(name: str) -> Stage:
    """The stage of local/stages/<name>.py."""
    return import_module(f"local.stages.{name}").run


def stage(
    writes: str,
    reads: tuple[str, ...] = (),
    extra: Callable = lambda cfg: {},
    after: Callable = lambda cfg: None,
    resumes: bool = False,
):
    """Make a stage of `body(cfg, partial)`, which fills `partial` and may return the outside files that it read.

    `writes` and `reads` are keys of `cfg.dirs`; `extra(cfg)` gives settings that the directory's name does not sign;
    `after(cfg)` is called once the directory is there, even if nothing had to run. A stage
    that `resumes` finds in `partial` what a killed run of the same configuration and inputs left there.
    """
    return lambda body: Stage(body, writes, reads, extra, after, resumes)


def _read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _keep_aside(out: Path) -> None:
    if not out.exists():
        return
    number = 1
    while (aside := out.with_name(f"{out.name}.stale-{number}")).exists():
        number += 1
    out.rename(aside)
    log.info("kept the former %s as %s", out, aside)


@contextmanager
def locked(out: Path, holder: str) -> Iterator[None]:
    """Hold `.<name>.lock` beside `out`, which is itself renamed; the kernel frees the lock of a killed process."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.parent / f".{out.name}.lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            log.info("waiting for %s, which makes %s", file.read().strip() or "another process", out)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()}, {holder}\n")
        file.flush()
        yield
