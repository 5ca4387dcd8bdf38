"""SLURM's queue, through its own commands: sbatch, squeue and scontrol. Accounting (sacct) is not needed."""

import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from local.errors import InputError

WAIT = 120  # seconds for an answer; SLURM's commands give up before
USUAL = ("None", "Priority", "Resources")  # reasons to wait that need no word


def remember(directories: Iterable[str], number: str) -> None:
    """The job that is to make them, beside each, in `<dir>.job`; it is forgotten if the number is empty."""
    for path in (Path(f"{directory}.job") for directory in directories):
        with suppress(OSError):  # which may be that nothing can be written there
            if number:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{number}\n", encoding="utf-8")
            else:
                path.unlink(missing_ok=True)


def remembered(directory: str | Path) -> str:
    """The number of the job that was to make a directory, or nothing."""
    path = Path(f"{directory}.job")
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def submit(script: str, options: list[str]) -> str:
    """The number of a new job."""
    return _ask("sbatch", "--parsable", *options, text=script).strip().partition(";")[0]


def waiting_or_running() -> dict[str, tuple[str, str]]:
    """Name and state of each of this user's jobs that has not ended, by its number."""
    jobs = {}
    for line in _ask("squeue", f"--user={os.getuid()}", "--noheader", "--format=%i|%j|%T|%N|%r").splitlines():
        number, name, state, node, reason = line.split("|", 4)
        why = f" ({reason})" * (state == "PENDING" and reason not in USUAL)
        jobs[number] = (name, state.lower() + f" on {node}" * bool(node) + why)
    return jobs


def ending(number: str) -> tuple[str, int, int]:
    """State, exit status and signal of a job that has ended; UNKNOWN if SLURM has forgotten it (MinJobAge)."""
    shown = _ask("scontrol", "--oneliner", "show", "job", number, missing="Invalid job id")
    fields = dict(field.partition("=")[::2] for field in shown.split())
    status, _, signal = fields.get("ExitCode", "0:0").partition(":")
    return fields.get("JobState", "UNKNOWN"), int(status), int(signal)


def _ask(*command: str, text: str = "", missing: str = "") -> str:
    """What a command prints, or nothing if its complaint is of what may be `missing`."""
    program = command[0]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=WAIT, check=False)
    except FileNotFoundError:
        elsewhere = "run where jobs are submitted, or without hydra/launcher=slurm"
        raise InputError(f"{program} is not on the PATH; {elsewhere}") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{program}: no answer within {WAIT} s; see scontrol ping") from None
    if done.returncode == 0:
        return done.stdout
    complaint = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    if missing and missing in complaint:
        return ""
    complaint = complaint.removeprefix(f"{program}: ").removeprefix("error: ").removeprefix("fatal: ")
    if program == "sbatch" and "contact" not in complaint:
        partitions = ", ".join(_ask("sinfo", "--noheader", "--format=%R").split())
        raise InputError(f"{program}: {complaint}; mend hydra.launcher.sbatch (partitions: {partitions})")
    raise InputError(f"{program}: {complaint}; does SLURM answer here? see scontrol ping")
