"""Kill a small default job again and again, and compare what it ends in with a calm run.

    python -m tests.bench.kills [--kills 30] [--seed 0]

Each kill takes the job's whole process group, at a moment drawn over the job's duration; then the same job starts
again in the same folder. A job that came to its end is compared, and the next one begins in a new folder. Compared are
all files but logs: times and memory are left out of JSON, the rest is byte for byte.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import REPOSITORY, TINY

SETTINGS = [
    *TINY, "autoencoder.updates=60", "recognizer.updates=60", "autoencoder.check_every=10",
    "recognizer.check_every=10", "arm=none,masked", "seed=1",
]  # fmt: skip
TIMES = ("seconds", "device_seconds", "wall_seconds", "peak_memory_bytes", "commit")
UNLIKE = ("wandb", "wandb_id", "log", "RESULTS.md", "index.html")  # the last two are results.json with its minutes


def start(folder: Path, settings: list[str] = SETTINGS) -> subprocess.Popen:
    """All stages, in a process group of their own."""
    command = [sys.executable, "-m", "local.run", "-m", *settings]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with open(folder.with_suffix(".output"), "ab") as output:
        return subprocess.Popen(
            command, cwd=folder, env=environment, start_new_session=True, stdout=output, stderr=output
        )


def killed(folder: Path, moment: float, settings: list[str] = SETTINGS) -> bool:
    """Start the job and kill it after `moment` seconds; false if it ended before, raises if it failed."""
    process = start(folder, settings)
    try:
        status = process.wait(moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    if status:
        sys.exit(f"status {status}, expected 0; see {folder.with_suffix('.output')}")
    return False


def reached(folder: Path) -> str:
    """The last line of a job's log, from the stage on."""
    log = folder / "exp/log/run.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return lines[-1].split(" INFO ")[-1] if lines else "nothing logged yet"


def timeless(value):
    """JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in TIMES}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def content(folder: Path) -> dict[str, object]:
    """What each file of a finished job holds; a marker's sizes differ where a time has another digit."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or set(name.parts) & set(UNLIKE) or name.suffix == ".lock":
            continue
        if name.suffix == ".json":
            found[str(name)] = timeless(json.loads(path.read_text()))
            if name.name == "done.json":
                del found[str(name)]["outputs"]
        else:
            found[str(name)] = path.read_bytes()
    return found


def differences(calm: dict[str, object], other: dict[str, object]) -> list[str]:
    """The files that are in one alone, or unlike."""
    return sorted(name for name in calm.keys() | other.keys() if calm.get(name) != other.get(name))


def main() -> None:
    """Print a line a kill, a line a finished job and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    work = Path(tempfile.mkdtemp(prefix="kills-"))
    (calm := work / "calm").mkdir()
    begin = time.monotonic()
    killed(calm, 3600)
    duration = time.monotonic() - begin
    expected, kills, job, unlike = content(calm), 0, 0, 0
    print(f"calm run: {duration:.0f} s, {len(expected)} files to compare, in {work}", flush=True)
    while kills < arguments.kills:
        (folder := work / f"job{(job := job + 1)}").mkdir()
        while killed(folder, moment := draw.uniform(0, duration) if kills < arguments.kills else 3600):
            kills += 1
            print(f"kill {kills:2}: after {moment:5.1f} s, at: {reached(folder)}", flush=True)
        found = differences(expected, content(folder))
        unlike += bool(found)
        print(f"job {job}: {', '.join(found) or 'the same'}", flush=True)
    print(f"{kills} kills in {job} jobs, {time.monotonic() - begin:.0f} s: {unlike} jobs differ from the calm run")
    sys.exit(bool(unlike))


if __name__ == "__main__":
    main()
