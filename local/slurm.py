"""Sweeps on a SLURM cluster, `hydra/launcher=slurm`: each cell is a job of its own.

Nothing is remembered but by the queue and the done markers. A job's name follows from what it makes, so a driver that
was killed and started again finds its jobs in the queue. A job that has left the queue either made its directories or
was cut short; then it is submitted again, and a training continues.
"""

import hashlib
import logging
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from local import failure, queue, ranks
from local.config import check_positive, check_whole
from local.errors import InputError, refusals_reported
from local.stage import cell_name, failed_at, settled, stage_named, stage_number, stages_of

log = logging.getLogger(__name__)
LOGS = Path("exp/slurm")
NO_LOG = 53  # the signal by which SLURM says that a job's log could not be opened


class Job:
    """A cell, and what became of it; `returned` is None as long as there is something to do."""

    def __init__(self, cfg: DictConfig, overrides: list[str]) -> None:
        self.cfg, self.overrides = cfg, overrides
        self.returned: JobReturn | None = None
        self.stages = stages_of(cfg)
        cell = cell_name(cfg, self.stages[-1])
        self.title = f"[{cell}] {' '.join(self.stages)}"
        made = [str(Path.cwd()), *(f"{name} {cfg.dirs[stage_named(name).writes]}" for name in self.stages)]
        digest = hashlib.sha256("\n".join(made).encode()).hexdigest()[:8]
        self.name = f"{self.stages[-1]}-{re.sub(r'[^A-Za-z0-9_.]+', '-', cell)}-{digest}"
        self.kills = self.cuts = 0  # how often it was killed, and had to end before it was done
        self.id = ""  # of its job in the queue

    def queued(self, number: str) -> None:
        """It is job `number` from now on, of whose log nothing has been read."""
        self.id, self.state, self.read, self.last = number, "", 0, ""
        queue.remember(self.trained(), number)
        self.log = LOGS / f"{self.name}-{number}.log"

    def look(self) -> bool:
        """Whether nothing is left to do; end it then."""
        from local.run import dev_wer

        if done := settled(self.cfg, self.stages) is not None:
            self.end(JobStatus.COMPLETED, dev_wer(self.cfg))
        return done

    def relay(self) -> None:
        """Log the lines that it has printed since, of which `last` is the last."""
        if not self.log.exists():
            return
        with open(self.log, "rb") as file:
            file.seek(self.read)
            lines, newline, _ = file.read().rpartition(b"\n")
        self.read += len(lines + newline)
        for self.last in lines.decode(errors="replace").splitlines():
            log.info("%s", self.last)

    def tell(self, state: str) -> None:
        """Log a state that it was not in before."""
        if state != self.state:
            log.info("%s: job %s %s", self.title, self.id, state)
        self.state = state

    def end(self, status: JobStatus, value: float | InputError | None) -> None:
        queue.remember(self.trained(), "")
        self.returned = JobReturn(self.overrides, self.cfg, status=status, _return_value=value)

    def trained(self) -> list[str]:
        """The directories of its trainings, whose checkpoints the next job needs if it has to wait."""
        return [self.cfg.dirs[name] for name in ("pretrain", "finetune") if name in self.stages and self.cfg.dirs[name]]

    def made(self) -> list[str]:
        """The directories that can hold why it failed."""
        found = (self.cfg.dirs[stage_named(name).writes] for name in self.stages if stage_number(name) > 2)
        return [directory for directory in found if directory]

    def forget(self) -> None:
        """Remove what an earlier job left of why it failed."""
        for directory in self.made():
            failure.forget(directory)

    def reason(self) -> str | None:
        """What the job itself left of why it failed."""
        return next(filter(None, map(failure.reason, self.made())), None)

    def fail(self, why: str) -> None:
        """End it, and record the reason: what was killed or canceled could not."""
        failed_at(self.cfg, self.stages, why)
        self.end(JobStatus.FAILED, InputError(f"{self.title}: {why}"))


class Slurm(Launcher):
    """See the module; its settings stand in conf/hydra/launcher/slurm.yaml."""

    __module__ = "hydra_plugins.slurm"  # the only package from which Hydra takes a launcher

    def __init__(self, sbatch, before, parallel, retries, requeues, poll_seconds) -> None:
        asked = {key: value for key, value in sbatch.items() if value is not None and value is not False}
        asked |= {"no_requeue": True} if sbatch.get("requeue") is False else {}  # which a cluster may do by default
        options = {f"--{key.replace('_', '-')}": value for key, value in asked.items()}
        self.options = [key if value is True else f"{key}={value}" for key, value in options.items()]
        self.cpus, self.before = sbatch["cpus_per_task"], before
        self.parallel, self.retries, self.requeues, self.poll_seconds = parallel, retries, requeues, poll_seconds

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run each cell as a job, unless it is done."""
        self._check()
        load = self.hydra_context.config_loader.load_sweep_config
        jobs = [Job(load(self.config, list(overrides)), list(overrides)) for overrides in job_overrides]
        for job in jobs:
            if job.look():  # a search asks again for what it has, and a job of an earlier driver may just have ended
                log.info("%s: done already", job.title)
        try:
            self._see_through(jobs)
        except KeyboardInterrupt:
            numbers = " ".join(job.id for job in jobs if job.id and not job.returned)
            sys.exit(f"error: interrupted; the same command finds its jobs again, scancel {numbers} ends them")
        return [job.returned for job in jobs]

    def _check(self) -> None:
        """Raise InputError for settings of the launcher that mean nothing."""
        for name, least in (("parallel", 1), ("retries", 0), ("requeues", 0)):
            check_whole(f"hydra.launcher.{name}", getattr(self, name), least)
        check_positive("hydra.launcher.poll_seconds", self.poll_seconds, 5)
        if isinstance(self.before, str):
            raise InputError(f"hydra.launcher.before={self.before}: expected lines, as ['{self.before}']")

    def _see_through(self, jobs: list[Job]) -> None:
        """Submit jobs and wait for them; what an earlier driver submitted is not submitted again."""
        with refusals_reported(LOGS):
            LOGS.mkdir(parents=True, exist_ok=True)
        complaint, unsure = "", True
        while left := [job for job in jobs if not job.returned]:
            try:
                if unsure:
                    self._find(left)
                    unsure = False
                self._submit(left)
                time.sleep(self.poll_seconds)
                self._look(left)
                complaint = ""
            except InputError as error:  # a controller that restarts, or a limit of jobs for each user
                if not any(job.id for job in left):
                    raise
                if str(error) != complaint:
                    log.warning("%s; trying again", error)
                complaint, unsure = str(error), True
                time.sleep(self.poll_seconds)

    def _find(self, left: list[Job]) -> None:
        """Those in the queue: of an earlier driver, or of an sbatch whose answer was lost."""
        there = {name: number for number, (name, _) in queue.waiting_or_running().items()}
        for job in left:
            if not job.id and job.name in there:
                job.queued(there[job.name])

    def _submit(self, left: list[Job]) -> None:
        """As many as may be in the queue at once."""
        room = self.parallel - sum(bool(job.id) for job in left)
        for job in [job for job in left if not job.id][: max(0, room)]:
            # exp/log/run.log is the driver's, who writes there what jobs print: two nodes that append mix their lines.
            own = ["machine.jobs=1", "hydra.job_logging.root.handlers=[console]"]
            own += [f"machine.workers={self.cpus}"] if self.cpus else []
            command = shlex.join([sys.executable, "-m", "local.run", *own, *job.overrides])
            script = "\n".join(["#!/bin/bash", *self.before, f"exec {command}", ""])
            where = [f"--chdir={Path.cwd()}", f"--output={LOGS}/{job.name}-%j.log", "--open-mode=append"]
            job.forget()
            shared = ranks.tasks(job.cfg) if {"pretrain", "finetune"} & {*job.stages} else []
            job.queued(queue.submit(script, [f"--job-name={job.name}", *where, *shared, *self.options]))
            job.tell("submitted")

    def _look(self, left: list[Job]) -> None:
        """Say what has changed."""
        there = queue.waiting_or_running()
        for job in left:
            if job.id in there:
                job.relay()
                job.tell(there[job.id][1])
            elif job.id:
                self._ended(job)

    def _ended(self, job: Job) -> None:
        """A job has left the queue: its cell is done, or to be submitted again, or has failed."""
        state, status, signal = queue.ending(job.id)
        job.relay()
        if job.look():
            return
        if state == "CANCELLED":
            job.fail(f"job {job.id} was canceled; run the same command again, which continues")
        elif state == "OUT_OF_MEMORY":
            job.fail(f"job {job.id} ran out of memory; raise hydra.launcher.sbatch.mem")
        elif signal == NO_LOG:
            job.fail(f"job {job.id} could not write {job.log} on its node; use a disk that all nodes can write to")
        elif state == "FAILED" and 0 < status < 128:
            why = job.reason() or job.last.removeprefix("error: ") or f"exit status {status}"
            job.fail(f"{why} (job {job.id}, {job.log})")
        elif state in ("TIMEOUT", "PREEMPTED"):
            job.cuts += 1
            self._again(job, state, job.cuts, self.requeues, "sbatch.time or hydra.launcher.requeues")
        else:
            job.kills += 1
            self._again(job, f"{state}, signal {signal}", job.kills, self.retries, "retries")

    def _again(self, job: Job, why: str, times: int, allowed: int, setting: str) -> None:
        log.warning("%s: job %s was cut short (%s)", job.title, job.id, why)
        if times > allowed:
            job.fail(f"cut short {times} times, at last {why}; see {job.log}, or raise hydra.launcher.{setting}")
        job.id = ""


def register() -> None:
    """Make the launcher known to Hydra."""
    sys.modules[Slurm.__module__] = sys.modules[__name__]
    Plugins.instance().register(Slurm)
