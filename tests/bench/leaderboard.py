"""How long leaderboard and listing take of 1,000 finished trials.

    python -m tests.bench.leaderboard [exp/]

The trials are copies of one real trial of exp/, each with a name, seed, learning rate and dev WER of its own, in a
temporary folder; pretrainings are copied for every tenth. What is measured is each command as a user waits for it,
Python's start included, three times.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from local.marker import read_json
from local.tree import Tree, Trial
from tests.conftest import REPOSITORY

TRIALS, SHARING = 1000, 10
COMMANDS = (
    ("local.leaderboard",), ("local.leaderboard", "--sort", "cost", "--csv", "board.csv"),
    ("local.leaderboard", "--plot", "board.png"), ("local.ls",),
)  # fmt: skip


def source(exp: Path) -> Trial:
    """A finished trial, with pretraining if there is one."""
    done = [trial for trial in Tree(exp).trials() if trial.state == "done"]
    if not done:
        sys.exit(f"error: {exp}: no finished trial to copy; run ./run.sh first")
    return max(done, key=lambda trial: "autoencoder.updates" in trial.settings)


def mark(directory: Path, **changes: dict) -> None:
    """Change entries of what a marker holds."""
    marker = read_json(directory / "done.json")
    for key, change in changes.items():
        marker[key] |= change
    (directory / "done.json").write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")


def multiply(exp: Path, trial: Trial, folder: Path) -> None:
    """Copy a trial into `folder`/exp many times."""
    rng, tree = random.Random(0), Tree(exp)
    dirs = tree.lineage(trial.directory)
    (folder / "data").symlink_to(exp.absolute().parent / "data")
    for number in range(TRIALS):
        name = f"{trial.directory[:-8]}{number:08x}"
        shutil.copytree(exp / trial.directory[4:], folder / name, symlinks=True)
        settings = tree.made(trial.directory)["config"]
        rate = {"recognizer": settings["recognizer"] | {"learning_rate": round(rng.uniform(0.001, 0.02), 5)}}
        frontend = dirs.get("bottleneck")
        if "pretrain" in dirs:
            pretrain = f"{dirs['pretrain'][:-8]}{number // SHARING:08x}"
            frontend = frontend.replace(dirs["pretrain"], pretrain)
            if number % SHARING == 0:
                shutil.copytree(exp / dirs["pretrain"][4:], folder / pretrain, symlinks=True)
                mark(folder / pretrain, config={"seed": number})
                mark(folder / frontend, upstream={"pretrain": pretrain})
        upstream = {"bottleneck": frontend} if frontend else {}
        mark(folder / name, config=rate | {"seed": number}, upstream=upstream)
        for decoded in (folder / name).glob("*/done.json"):
            mark(decoded.parent, upstream={"finetune": name} | upstream)
        for wer in (folder / name).glob("*/score/dev/wer"):
            mark(wer.parent.parent, upstream={"decode": str(wer.parent.parent.parent.relative_to(folder))})
            first, *rest = wer.read_text(encoding="utf-8").split(" ")
            wer.write_text(" ".join([first, f"{rng.uniform(20, 80):.2f}", *rest[1:]]), encoding="utf-8")


def main() -> None:
    """Build the tree, then measure."""
    exp = Path(sys.argv[1] if sys.argv[1:] else "exp")
    trial = source(exp)
    with tempfile.TemporaryDirectory() as folder:
        multiply(exp, trial, Path(folder))
        print(f"{TRIALS:,} copies of {trial.directory}, {TRIALS // SHARING} of its pretraining, {os.cpu_count()} cores")
        for module, *arguments in COMMANDS:
            seconds = []
            for _ in range(3):
                start = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-m", module, *arguments], cwd=folder, check=True, capture_output=True, text=True,
                    env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
                )  # fmt: skip
                seconds.append(time.perf_counter() - start)
            last = done.stdout.splitlines()[-1]
            print(f"{' '.join([module, *arguments])}: {', '.join(f'{s:.2f}' for s in seconds)} s ({last})")


if __name__ == "__main__":
    main()
