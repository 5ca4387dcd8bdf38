"""How long it takes to run a finished sweep of 1,000 cells again: every one of them is checked, none has work.

    python -m tests.bench.many_cells [--cells 1000] [--arms masked none]

One cell of an arm is trained, at the size of the tests; the others, of 10 x 10 learning rates and as many seeds as it
takes, are copies of it with markers of their own, as if a sweep had made them. Then the sweep's command runs three
times, of which the first one makes the report. Seconds, and in brackets those of CPU, Python's start included.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from local.composition import Composition
from local.config import CONF, named
from local.marker import read_marker
from local.run import stage_named  # which also makes torch single-threaded, before it is imported
from local.stage import STAGES
from tests.conftest import REPOSITORY, TINY, here

SETTINGS = [*TINY, "logger=csv", "decoder.splits=[dev]"]  # a search reads dev alone
RATES = [round(0.002 + 0.0003 * i, 4) for i in range(10)]
SWEPT = ("autoencoder.learning_rate", "recognizer.learning_rate")


def copied(cfg, sources: dict[str, str], stages: tuple[str, ...]) -> None:
    """Give a cell the directories of another one, by key, with the markers that it would have."""
    for stage in map(stage_named, stages):
        out = cfg.dirs[stage.writes]
        if out is None or Path(out, "done.json").exists():
            continue
        shutil.copytree(sources[stage.writes], out, ignore=shutil.ignore_patterns("bottleneck", "greedy-*", "score"))
        marker = read_marker(out) | stage._wanted(cfg)
        Path(out, "done.json").write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")


def fill(folder: Path, arms: list[str], seeds: int) -> None:
    """Make all cells in a folder."""
    for arm in arms:
        here(folder, 0, 7, f"arm={arm}", *SETTINGS[len(TINY) :])
    with chdir(folder), initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        composition = Composition(loader, loader.load_configuration("config", [], RunMode.MULTIRUN, from_shell=False))
        for arm in arms:
            source = dict(named(composition.reduced([*SETTINGS, f"arm={arm}"])[1]).dirs)
            for rates in [(a, b) for a in RATES for b in RATES]:
                for seed in range(seeds):
                    cell = [f"{key}={value}" for key, value in zip((*SWEPT, "seed"), (*rates, seed), strict=True)]
                    cfg = composition.reduced([*SETTINGS, f"arm={arm}", *cell])[1]
                    copied(named(cfg), source, STAGES[3:8])


def main() -> None:
    """Make the cells, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--arms", nargs="+", default=["masked"])
    arguments = parser.parse_args()
    seeds = arguments.cells // len(RATES) ** 2 // len(arguments.arms)
    rates = ",".join(map(str, RATES))
    swept = [*(f"{key}={rates}" for key in SWEPT), f"seed=range({seeds})", f"arm={','.join(arguments.arms)}"]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        fill(Path(folder), arguments.arms, seeds)
        count = seeds * len(RATES) ** 2 * len(arguments.arms)
        print(f"{count:,} cells made in {time.perf_counter() - start:.0f} s", flush=True)
        for what in ("with its report", "nothing to do", "nothing to do"):
            start, spent = time.perf_counter(), sum(os.times()[2:4])
            done = subprocess.run(
                [sys.executable, "-m", "local.run", "-m", *SETTINGS, *swept], cwd=folder, check=False,
                capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip
            if done.returncode:
                sys.exit(done.stdout[-2000:] + done.stderr)
            seconds, cpu = time.perf_counter() - start, sum(os.times()[2:4]) - spent
            already = done.stdout.count("score: done already")
            print(f"{what}: {seconds:.1f} ({cpu:.1f}); {already:,} scores done already", flush=True)


if __name__ == "__main__":
    main()
