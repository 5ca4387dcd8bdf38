"""How long leaderboard and listing take of 1,000 finished trials.

    python -m tests.bench.leaderboard [exp/]

The trials are copies of one real trial of exp/, each with a name, seed, learning rate and dev WER of its own, in a
temporary folder, as one sweep would leave them; ten share a pretraining. What is measured, three times, is each command
as a user waits for it, Python's start included, and in brackets its CPU time, which says more on a busy machine.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from local.marker import digest, read_json, read_marker
from local.tree import CHAIN, Tree
from tests.conftest import REPOSITORY

TRIALS, SHARING = 1000, 10
COMMANDS = (
    ("local.leaderboard",), ("local.leaderboard", "--sort", "cost", "--csv", "board.csv"),
    ("local.leaderboard", "--plot", "board.png"), ("local.ls",),
)  # fmt: skip


def source(exp: Path) -> dict:
    """The cell of a finished trial, of the arm whose trials take most files."""
    cells = [cell for path in exp.glob("cells/*.json") for cell in read_json(path)]
    tree = Tree(exp)
    done = [cell for cell in cells if tree.state(cell["dirs"]["score"]) == "done"]
    if not done:
        sys.exit(f"error: {exp}: no finished trial to copy; run ./run.sh first")
    return max(done, key=lambda cell: (bool(cell["dirs"]["pretrain"]), cell["dirs"]["score"]))


def put(exp: Path, name: str, folder: Path, copy: str, config: dict, upstream: dict) -> None:
    """Copy a directory of `exp`, unless that is done, and say that it was made otherwise."""
    if not (folder / copy).exists():
        shutil.copytree(exp / name[4:], folder / copy, symlinks=True)
    marker = read_json(folder / copy / "done.json")
    marker["config"] |= config
    marker["upstream"] |= {key: path for key, path in upstream.items() if key in marker["upstream"]}
    marker["inputs"] = {key: digest(read_marker(folder / path)) for key, path in marker["upstream"].items()}
    (folder / copy / "done.json").write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")


def multiply(exp: Path, cell: dict, folder: Path) -> None:
    """Copy a trial into `folder`/exp many times, with the list of a sweep that asked for them."""
    rng, cells = random.Random(0), []
    (folder / "data").symlink_to(exp.absolute().parent / "data")
    settings = cell["config"]
    for number in range(TRIALS):
        seed = number // SHARING
        fixed = {name: dirs for name, dirs in cell["dirs"].items() if dirs}
        named = {fixed["finetune"]: f"{fixed['finetune'][:-8]}{number:08x}"}
        if "pretrain" in fixed:
            named[fixed["pretrain"]] = f"{fixed['pretrain'][:-8]}{seed:08x}"
        dirs = dict(fixed)
        for old, new in named.items():
            dirs = {key: path.replace(old, new) for key, path in dirs.items()}
        rate = {"recognizer": settings["recognizer"] | {"learning_rate": round(rng.uniform(0.001, 0.02), 5)}}
        own = {"pretrain": {"seed": seed}, "finetune": rate | {"seed": seed, "dirs.frontend": dirs["frontend"]}}
        for key in (key for key in CHAIN if key in dirs):
            if number % SHARING == 0 or key not in ("pretrain", "bottleneck"):
                put(exp, fixed[key], folder, dirs[key], own.get(key, {}), dirs)
        wer = folder / dirs["score"] / "dev/wer"
        first, rest = wer.read_text(encoding="utf-8").split("\n", 1)
        words = first.split(" ")
        wer.write_text(
            " ".join([words[0], f"{rng.uniform(20, 80):0{len(words[1])}.2f}", *words[2:]]) + "\n" + rest,
            encoding="utf-8",
        )
        cells.append(cell | {"dirs": cell["dirs"] | dirs, "seed": seed, "config": settings | rate | {"seed": seed}})
    (folder / "exp/cells").mkdir()
    (folder / "exp/cells/list.json").write_text(json.dumps(cells, indent=1), encoding="utf-8")


def main() -> None:
    """Build the tree, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exp", nargs="?", default="exp", type=Path, help="of a run; default: exp")
    exp = parser.parse_args().exp
    cell = source(exp)
    with tempfile.TemporaryDirectory() as folder:
        multiply(exp, cell, Path(folder))
        print(
            f"{TRIALS:,} copies of {cell['dirs']['finetune']}, {TRIALS // SHARING} of its pretraining; seconds, of CPU"
        )
        for module, *arguments in COMMANDS:
            seconds = []
            for _ in range(3):
                start, spent = time.perf_counter(), sum(os.times()[2:4])
                done = subprocess.run(
                    [sys.executable, "-m", module, *arguments], cwd=folder, check=True, capture_output=True, text=True,
                    env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
                )  # fmt: skip
                seconds.append(f"{time.perf_counter() - start:.2f} ({sum(os.times()[2:4]) - spent:.2f})")
            last = done.stdout.splitlines()[-1]
            print(f"{' '.join([module, *arguments])}: {', '.join(seconds)}; {last}")


if __name__ == "__main__":
    main()
