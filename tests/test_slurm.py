"""What the launchers of clusters do where there is none; tests/cluster/ has a SLURM and a Ray cluster."""

import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, borrow, recipe
from tests.test_leaderboard import board

SLURM = ("hydra/launcher=slurm", "logger=csv")
BARE = {"PATH": str(Path(sys.executable).parent)}  # without sbatch


def test_cells_that_are_done_and_dry_runs_need_no_job(tiny):
    scored = ("stage=5", "stop_stage=7", "arm=none,masked", "seed=1,2", *SLURM)
    assert recipe(tiny, *scored, **BARE).count("score: done already") == 4
    dry = recipe(tiny, *scored, "recognizer.updates=5", "dry_run=true", **BARE).splitlines()
    assert sum(line.startswith("to run 5 finetune") for line in dry) == 4 and len(dry) == 12


def test_a_cell_that_needs_a_job_is_refused_in_one_line_without_sbatch(tiny, tmp_path):
    settings = ("stage=5", "stop_stage=7", "arm=none", "seed=1", *SLURM)
    output = recipe(borrow(tiny, tmp_path), *settings, status=1, **BARE)
    assert output == "error: squeue is not on the PATH; run where jobs are submitted, or without hydra/launcher=slurm\n"
    assert not list(tmp_path.glob("exp/*/*/none-*"))


@pytest.mark.parametrize(
    "state, reason", [("OUT_OF_MEMORY", "ran out of memory; raise "), ("CANCELLED", "was canceled")]
)
def test_a_job_that_could_not_say_why_it_ended_is_a_failed_trial_until_it_is_done(tiny, tmp_path, state, reason):
    for name, prints in (("sbatch", "7"), ("squeue", ""), ("scontrol", f"JobId=7 JobState={state} ExitCode=0:9")):
        (tmp_path / name).write_text(f"#!/bin/sh\nprintf '{prints}'\n")  # a cluster whose jobs all end so
        (tmp_path / name).chmod(0o755)
    folder = borrow(tiny, tmp_path)
    settings = ("stage=5", "stop_stage=7", "arm=none", "seed=1", "logger=csv")
    path = {"PATH": f"{tmp_path}:{BARE['PATH']}:/usr/bin:/bin"}
    output = recipe(folder, *settings, *SLURM, "hydra.launcher.poll_seconds=0.1", status=1, **path)
    assert f"error: [none seed=1] finetune decode score: job 7 {reason}" in output
    (row,) = board(folder)
    assert (row["state"], row["stage"]) == ("failed", "finetune") and row["reason"].startswith(f"job 7 {reason}")
    recipe(folder, *settings)
    assert board(folder)[0]["state"] == "done" and not list(folder.glob("exp/**/*.failed"))


def test_a_launcher_that_is_not_installed_is_refused_in_one_line_that_names_those_that_are(tmp_path):
    output = recipe(tmp_path, "stop_stage=0", "hydra/launcher=submitit_slurm", status=1)
    assert output.startswith("error: unknown hydra/launcher 'submitit_slurm'; there are: ray, slurm, ")
    assert "joblib" in output and len(output.splitlines()) == 1


def test_without_ray_its_launcher_says_in_one_line_what_to_install(tmp_path):
    typed = "hydra.launcher.ray.init.adress"
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise ImportError('no ray here')")
    path = f"{tmp_path}:{REPOSITORY}"
    output = recipe(tmp_path, "stop_stage=0", "hydra/launcher=ray", status=1, PYTHONPATH=path)
    assert "pip install 'ray[default]==" in output and len(output.splitlines()) == 1
    output = recipe(tmp_path, "stop_stage=0", "hydra/launcher=ray", f"{typed}=a:1", status=1)
    assert output == f"error: unknown setting '{typed}'; the nearest is 'hydra.launcher.ray.init.address'\n"


def test_the_cells_of_a_sweep_run_one_after_another_with_the_basic_launcher(tiny):
    output = recipe(tiny, "stage=5", "stop_stage=7", "arm=none,masked", "seed=1,2", "hydra/launcher=basic")
    assert output.count("score: done already") == 4
