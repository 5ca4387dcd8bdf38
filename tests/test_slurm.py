"""What the launchers of clusters do where there is none; tests/cluster/ has a SLURM and a Ray cluster."""

import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, borrow, printed, recipe
from tests.test_leaderboard import board

SLURM = ("hydra/launcher=slurm", "logger=csv")
BARE = {"PATH": str(Path(sys.executable).parent)}  # without sbatch


def test_cells_that_are_done_and_dry_runs_need_no_job(copy):
    scored = ("stage=5", "stop_stage=7", "arm=none,masked", "seed=1,2", *SLURM)
    assert recipe(copy, *scored, **BARE).count("score: done already") == 4
    dry = recipe(copy, *scored, "recognizer.updates=5", "dry_run=true", **BARE).splitlines()
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
    output = recipe(tmp_path, "stop_stage=0", "hydra/launcher=submitit_local", status=1)
    assert output.startswith("error: unknown hydra/launcher 'submitit_local'; there are: ray, slurm, ")
    assert "joblib" in output and len(output.splitlines()) == 1


@pytest.mark.parametrize(
    "settings, message",
    [
        (["hydra/launcher=submitit_slurm"], "hydra/launcher=submitit_slurm: its jobs are lost with the driver; use "),
        (["hydra.launcher.sbatch.mem=1G"], "hydra.launcher.sbatch.mem has a meaning with hydra/launcher=slurm only"),
        (["sweep.trials=3"], "sweep.trials has a meaning with sweep=optuna only; add that"),
        ([*SLURM, "hydra.launcher.parallel=0"], "hydra.launcher.parallel=0: expected a whole number, 1 or more"),
        ([*SLURM, "hydra.launcher.poll_seconds=x"], "hydra.launcher.poll_seconds=x: expected a number above 0"),
        ([*SLURM, "hydra.launcher.before=module load cuda"], "before=module load cuda: expected lines, as ['module "),
        (["machine.jobs=0"], "machine.jobs=0: expected a whole number, 1 or more"),
        (["trainer.checkpoint_minutes=null"], "trainer.checkpoint_minutes=None: expected a number above 0"),
    ],
)
def test_a_setting_of_how_it_runs_that_means_nothing_is_refused_in_one_line(tiny, tmp_path, settings, message):
    folder = borrow(tiny, tmp_path)
    output = recipe(folder, "stage=5", "stop_stage=5", "arm=none", "seed=1", *settings, status=1, **BARE)
    assert output.startswith("error: ") and message in output and len(output.splitlines()) == 1


def test_a_training_whose_next_job_waits_is_queued_and_is_not_cleaned_up(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    made = folder / "exp/espeak/labels-all-0/none-12345678"
    Path(f"{made}.partial/checkpoints").mkdir(parents=True)
    Path(f"{made}.job").write_text("7\n")
    squeue = tmp_path / "bin/squeue"
    squeue.parent.mkdir()
    path = {"PATH": f"{squeue.parent}:{BARE['PATH']}:/usr/bin:/bin"}
    for line, state in (("7|score-none|PENDING||Priority\n", "queued"), ("", "killed")):
        squeue.write_text(f"#!/bin/sh\nprintf '{line}'\n")
        squeue.chmod(0o755)
        (row,) = [row for row in printed(folder, "local.ls", "none-12345678", **path).splitlines() if "none-" in row]
        assert state in row.split()
        printed(folder, "local.ls", "--clean", "--delete", **path)
        assert Path(f"{made}.partial").exists() == (state == "queued")


def test_without_ray_its_launcher_says_in_one_line_what_to_install(tmp_path):
    typed = "hydra.launcher.ray.init.adress"
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise ImportError('no ray here')")
    path = f"{tmp_path}:{REPOSITORY}"
    output = recipe(tmp_path, "stop_stage=0", "hydra/launcher=ray", status=1, PYTHONPATH=path)
    assert "pip install 'ray[default]==" in output and len(output.splitlines()) == 1
    output = recipe(tmp_path, "stop_stage=0", "hydra/launcher=ray", f"{typed}=a:1", status=1)
    assert output == f"error: unknown setting '{typed}'; the nearest is 'hydra.launcher.ray.init.address'\n"


def test_the_cells_of_a_sweep_run_one_after_another_with_the_basic_launcher(copy):
    output = recipe(copy, "stage=5", "stop_stage=7", "arm=none,masked", "seed=1,2", "hydra/launcher=basic")
    assert output.count("score: done already") == 4
