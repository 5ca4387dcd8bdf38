"""Kill a small job before each single file operation of its stages, and compare what it ends in with a calm run.

    python -m tests.bench.crashes [--stages 1 8] [--arm masked] [--folder FOLDER]

Moments drawn at random (tests/bench/kills.py) hardly ever fall between two file operations; here each gap gets its
turn: a process opens, renames or removes its k-th file no more, and the same stage then runs in peace.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import traceback
from contextlib import chdir
from pathlib import Path

from hydra import compose, initialize_config_dir

from local.config import CONF
from local.run import stage_named  # which also makes torch single-threaded, before it is imported
from local.stage import STAGES
from tests.bench.kills import content, differences
from tests.conftest import TINY

OPERATIONS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "open"}


def kill_before(number: int) -> None:
    """Kill this process before its operation `number`, counted from 1, that changes files below the current folder."""
    left = number

    def operation(event: str, arguments: tuple) -> None:
        nonlocal left
        if event not in OPERATIONS or not isinstance(arguments[0], str | Path):
            return
        reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if reads or not os.path.abspath(arguments[0]).startswith(os.getcwd() + "/"):
            return
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(operation)


def stage_in(folder: Path, name: str, settings: list[str], kill: int = 0) -> int:
    """Run a stage in a child process; return its exit status, negative if it was killed."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        with chdir(folder), initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", [*TINY, "logger=csv", *settings])
            if kill:
                kill_before(kill)
            stage_named(name)(cfg)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def crashes(before: Path, name: str, settings: list[str]) -> tuple[int, list[str]]:
    """How many operations a stage has in `before`, and what was wrong after which; leaves the stage done there."""
    calm, wrong, number = before.with_name(f"{before.name}-calm"), [], 0
    shutil.copytree(before, calm, symlinks=True)
    status = stage_in(calm, name, settings)
    expected = content(calm)
    while status == 0:
        number += 1
        folder = before.with_name(f"{before.name}-{name}-{number}")
        shutil.copytree(before, folder, symlinks=True)
        if stage_in(folder, name, settings, kill=number) == 0:
            break  # it has fewer operations
        status = stage_in(folder, name, settings)
        if status or (found := differences(expected, content(folder))):
            wrong.append(f"killed before operation {number}: {f'status {status}' if status else ', '.join(found)}")
            status = 0
        shutil.rmtree(folder)
    else:
        wrong.append(f"status {status} without a kill")
    shutil.rmtree(before)
    calm.rename(before)
    return number - 1, wrong


def main() -> None:
    """Print a line a stage; exit with status 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, nargs=2, default=(0, 7), metavar=("FIRST", "LAST"))
    parser.add_argument("--arm", default="masked")
    parser.add_argument("--folder", type=Path, help="where the stages before are done (default: a new one)")
    arguments = parser.parse_args()
    import lightning_modules.fit  # noqa: F401  once, and not in each child

    settings, failed = [f"arm={arguments.arm}", "seed=1"], False
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="crashes-"), "job")
    folder.mkdir(exist_ok=True)
    for name in STAGES[: arguments.stages[1] + 1]:
        if name in STAGES[arguments.stages[0] :]:
            count, wrong = crashes(folder, name, settings)
            print(f"{name}: {count} operations, {len(wrong)} wrong", *wrong, sep="\n  ", flush=True)
            failed |= bool(wrong)
        elif stage_in(folder, name, settings):
            sys.exit(f"{name} failed")
    sys.exit(failed)


if __name__ == "__main__":
    main()
