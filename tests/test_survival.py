"""What a kill, a second run at once, or a damaged file leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY, TINY, recipe

LONGER = ["autoencoder.updates=40", "recognizer.updates=40", "autoencoder.check_every=5", "recognizer.check_every=5"]


def borrow(tiny: Path, folder: Path) -> Path:
    """A folder with the data and features of the tiny run, and nothing trained."""
    (folder / "data").symlink_to(tiny / "data")
    return folder


def start(folder: Path, *settings: str) -> subprocess.Popen:
    """Run stages in the background, in a process group of their own."""
    return subprocess.Popen(
        [sys.executable, "-m", "local.run", "-m", *TINY, *settings], cwd=folder, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def weights(folder: Path, name: str) -> dict:
    (path,) = folder.glob(f"exp/**/{name}.pt")
    return torch.load(path, weights_only=True)["state"]


@pytest.mark.parametrize(
    "stages, arm, name",
    [(("stage=3", "stop_stage=3"), "masked", "autoencoder"), (("stage=5", "stop_stage=5"), "none", "recognizer")],
)
def test_a_training_killed_between_checkpoints_ends_in_the_same_bits(tiny, tmp_path, stages, arm, name):
    calm, killed = (borrow(tiny, tmp_path / n) for n in ("calm", "killed") if not (tmp_path / n).mkdir())
    settings = [*stages, f"arm={arm}", "seed=1", "logger=csv", *LONGER]
    recipe(calm, *settings)
    process = start(killed, *settings)
    while not list(killed.glob("exp/**/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(killed.glob(f"exp/**/{name}.pt")), "killed too late to show anything"
    recipe(killed, *settings)
    expected, found = weights(calm, name), weights(killed, name)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    rows = [[json.loads(p.read_text()) for p in f.glob("exp/**/history.json")][0] for f in (calm, killed)]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in rows[0]] == [
        {k: v for k, v in row.items() if k != "seconds"} for row in rows[1]
    ]


def test_a_download_killed_half_way_leaves_nothing_that_a_stage_would_take_for_done(tiny, tmp_path):
    process = start(tmp_path, "stop_stage=0")
    while not list(tmp_path.glob("data/audio/*.partial/*/*/*.flac")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "run stage 0 (download) first" in recipe(tmp_path, "stage=1", "stop_stage=1", status=1)
    recipe(tmp_path, "stop_stage=0")
    (whole,), (expected,) = (folder.glob("data/audio/espeak-*") for folder in (tmp_path, tiny))
    files = sorted(p.relative_to(expected) for p in expected.rglob("*.flac"))
    assert files == sorted(p.relative_to(whole) for p in whole.rglob("*.flac"))
    assert all((whole / p).read_bytes() == (expected / p).read_bytes() for p in files)


def test_two_runs_at_once_do_the_work_once(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    settings = ("stage=3", "stop_stage=3", "arm=masked", "seed=1", "logger=csv", *LONGER)
    runs = [start(folder, *settings) for _ in range(2)]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sum("pretrain: done in" in output for output in outputs) == 1
    assert sum("waiting for process" in output and "done already" in output for output in outputs) == 1


def test_a_damaged_result_is_redone_and_the_former_one_kept(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    settings = ("stage=5", "stop_stage=7", "arm=none", "seed=1", "logger=csv")
    recipe(folder, *settings)
    (score,) = folder.glob("exp/espeak/*/none-*/greedy-*/score")
    expected = (score / "test" / "wer").read_text()
    (score / "test" / "wer").write_text("")
    output = recipe(folder, *settings)
    assert "score/test/wer is gone or cut" in output and output.count("done already") == 2
    assert (score / "test" / "wer").read_text() == expected
    assert (score.parent / "score.stale-1" / "dev" / "wer").exists()
    (score / "done.json").write_text('{"config": ')
    assert "an unreadable done.json" in recipe(folder, *settings)
    assert (score / "test" / "wer").read_text() == expected
