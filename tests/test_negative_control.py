"""Two sets of seeds of one arm are never told apart; two that differ are."""

import os
import subprocess
import sys

import numpy as np

from local.tables import render_markdown
from tests.bench.negative_control import controls
from tests.conftest import REPOSITORY, recipe
from tests.test_results import LENGTH, SPEAKERS, cell


def drawn(gain: float) -> list[list[int]]:
    """Errors of six seeds by speaker: speakers and seeds differ, and every other seed is better by `gain`."""
    rng = np.random.default_rng(0)
    speakers = rng.gamma(8, 1 / 8, SPEAKERS)
    return [
        rng.binomial(LENGTH, 0.3 * speakers * (1 + 0.1 * rng.standard_normal()) * (1 - gain * (seed % 2 == 0))).tolist()
        for seed in range(1, 7)
    ]


def page(folder, gain: float) -> str:
    cells = [cell(folder, "masked", seed, errors) for seed, errors in enumerate(drawn(gain), 1)]
    ((title, found),) = controls(cells)
    assert title == "masked (frozen): seeds 1, 3, 5 as none, seeds 2, 4, 6 as again"
    return render_markdown(found)


def test_two_sets_of_seeds_of_one_arm_cannot_be_told_apart_and_a_better_set_can(tmp_path):
    assert "- again against none: cannot tell: " in page(tmp_path / "same", gain=0.0)
    assert "- again lowers the WER by " in page(tmp_path / "better", gain=0.5)


def control(folder) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench.negative_control", "exp/espeak/report"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_runs_on_the_report_of_six_trainings_and_names_what_is_missing(tiny, tmp_path):
    done = control(tiny)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "error: no arm has 6 seeds; run ./run.sh arm=none seed=1,2,3,4,5,6" in done.stderr
    (tmp_path / "data").symlink_to(tiny / "data")
    for first, last in ((5, 7), (8, 8)):
        recipe(
            tmp_path, "arm=none", "seed=1,2,3,4,5,6", f"stage={first}", f"stop_stage={last}", "logger=csv",
            "recognizer.updates=2",
        )  # fmt: skip
    done = control(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "none (frozen): seeds 1, 3, 5 as none, seeds 2, 4, 6 as again" in done.stdout
    assert "again against none: cannot tell: " in done.stdout
