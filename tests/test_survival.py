"""What a kill, a second run at once, or a damaged file leaves behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from lightning_modules.batch import Batcher
from local.config import CONF
from local.errors import InputError
from local.stage import STAGES, stage_named
from tests.bench.kills import content, differences
from tests.conftest import REPOSITORY, TINY, borrow, here, recipe
from tests.test_leaderboard import board

LONGER = ["autoencoder.updates=40", "recognizer.updates=40", "autoencoder.check_every=5", "recognizer.check_every=5"]


def start(folder: Path, *settings: str) -> subprocess.Popen:
    """Run stages in the background, in a process group of their own."""
    return subprocess.Popen(
        [sys.executable, "-m", "local.run", "-m", *TINY, *settings], cwd=folder, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a job in the background ignores
    )  # fmt: skip


def weights(folder: Path, name: str) -> dict:
    (path,) = folder.glob(f"exp/**/{name}.pt")
    return torch.load(path, weights_only=True)["state"]


def same(expected: dict, found: dict) -> bool:
    return expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_cell_whose_process_is_killed_fails_with_its_reason_and_the_others_go_on(tiny, tmp_path):
    folder, shell = borrow(tiny, tmp_path), tmp_path / "sitecustomize.py"
    # As if the kernel did it for want of memory, whenever this cell trains.
    shell.write_text(
        "import os, signal, threading, time, glob\n"
        "def watch():\n"
        "    while True:\n"
        "        time.sleep(0.02)\n"
        f"        for lock in glob.glob({str(folder / 'exp/*/*/.none-*.lock')!r}):\n"
        "            if open(lock).read() == f'process {os.getpid()}, finetune of none seed=2\\n':\n"
        "                os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
    )
    settings = ("stage=5", "stop_stage=7", "arm=none", "seed=1,2,3", "logger=csv", "machine.jobs=2")
    output = recipe(folder, *settings, status=3, PYTHONPATH=f"{tmp_path}:{REPOSITORY}")
    assert "error: [none seed=2] its process was killed, often for want of memory" in output
    rows = {row["seed"]: (row["state"], row["reason"].partition(",")[0]) for row in board(folder)}
    assert rows == {"1": ("done", ""), "2": ("failed", "[none seed=2] its process was killed"), "3": ("done", "")}
    recipe(folder, *settings)
    assert {row["state"] for row in board(folder)} == {"done"}


@pytest.mark.parametrize(
    "number, launcher, status, said",
    [
        (signal.SIGTERM, "basic", -signal.SIGTERM, 0),
        (signal.SIGTERM, "joblib", -signal.SIGTERM, 0),
        (signal.SIGINT, "basic", 130, 1),
        (signal.SIGINT, "joblib", 130, 1),
    ],
)
def test_a_training_ended_by_a_signal_ends_at_once_and_not_as_if_it_were_done(
    tiny, tmp_path, number, launcher, status, said
):
    folder = borrow(tiny, tmp_path)
    settings = ["stage=5", "stop_stage=5", "arm=none", "seed=1,2", "logger=csv", "machine.jobs=2", *LONGER]
    process = start(folder, *settings, "recognizer.updates=4000", f"hydra/launcher={launcher}")
    while not list(folder.glob("exp/**/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    # Ctrl-C reaches the whole group, `kill` the driver alone; workers that go on would keep its output open.
    {signal.SIGINT: os.killpg, signal.SIGTERM: os.kill}[number](process.pid, number)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == status and "Traceback" not in printed
    assert printed.count("error: interrupted; the same command goes on from here\n") == said


@pytest.mark.parametrize(
    "stages, arm, name",
    [(("stage=3", "stop_stage=3"), "masked", "autoencoder"), (("stage=5", "stop_stage=5"), "none", "recognizer")],
)
def test_a_training_killed_between_checkpoints_ends_in_the_same_bits(tiny, tmp_path, caplog, stages, arm, name):
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
    cut = shutil.copytree(killed, tmp_path / "cut", symlinks=True)
    recipe(killed, *settings)
    assert same(weights(calm, name), weights(killed, name))
    assert not differences(content(calm), content(killed))
    (last,) = cut.glob("exp/**/last.ckpt")
    rest = shutil.copytree(cut, tmp_path / "moved", symlinks=True)
    last.write_bytes(last.read_bytes()[:-1000])
    for folder, warned in ((cut, True), (rest, False)):
        caplog.clear()
        here(folder, int(stages[0][-1]), int(stages[1][-1]), f"arm={arm}", *LONGER)
        assert ("no readable checkpoint" in caplog.text) == warned
        assert same(weights(calm, name), weights(folder, name))


def test_a_training_killed_between_validations_goes_on_from_there_or_from_the_checkpoint_before(
    tiny, tmp_path, caplog, monkeypatch
):
    calm, killed = (borrow(tiny, tmp_path / n) for n in ("calm", "killed") if not (tmp_path / n).mkdir())
    once = ["autoencoder.updates=60", "autoencoder.check_every=40", "trainer.checkpoint_minutes=0.0001"]
    here(calm, 3, 3, "arm=masked", *once)
    process = start(killed, "stage=3", "stop_stage=3", "arm=masked", "seed=1", "logger=csv", *once)
    while len(list(killed.glob("exp/**/checkpoints/*.ckpt"))) < 2:  # the last is set aside before it is written anew
        os.killpg(process.pid, signal.SIGCONT)
        assert process.poll() is None
        time.sleep(0.02)
        os.killpg(process.pid, signal.SIGSTOP)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    saved = {path.name: torch.load(path, weights_only=True)["global_step"] for path in killed.glob("exp/**/[lb]*.ckpt")}
    cut = shutil.copytree(killed, tmp_path / "cut", symlinks=True)
    (last,) = cut.glob("exp/**/last.ckpt")
    last.write_bytes(last.read_bytes()[:-1000])
    steps, at = [], Batcher.at
    monkeypatch.setattr(Batcher, "at", lambda self, step, *place: steps.append(step) or at(self, step, *place))
    for folder, name in ((killed, "last.ckpt"), (cut, "before.ckpt")):
        steps.clear()
        here(folder, 3, 3, "arm=masked", *once)
        assert steps == list(range(saved[name], 60)) and 0 < saved[name] < 40
        assert not differences(*(content(one / "exp/pretrain") for one in (calm, folder)))
    assert "last.ckpt: no readable checkpoint" in caplog.text


def test_a_training_that_is_refused_on_its_way_keeps_its_checkpoints(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)

    def body(cfg, partial: Path) -> None:
        (partial / "checkpoints").mkdir()
        (partial / "checkpoints" / "last.ckpt").touch()
        raise InputError("a batch is too large for the memory")

    refused = replace(stage_named("pretrain"), body=body)
    with chdir(folder), initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(InputError):
        refused(compose("config", [*TINY, "arm=masked", "logger=csv"]))
    assert list(folder.glob("exp/pretrain/*.partial/checkpoints/last.ckpt"))


def test_weights_that_are_not_finite_after_the_last_update_end_the_training(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    once = ("recognizer.updates=1", "recognizer.check_every=1", "recognizer.learning_rate=1e38")
    output = recipe(folder, "stage=5", "stop_stage=6", "arm=none", "seed=1", "logger=csv", *once, status=1)
    assert "error: ctc: the loss on dev is nan at step 1, expected a finite number; lower its learning rate" in output
    assert {path.suffix for path in folder.glob("exp/espeak/*/none-*/")} <= {".partial"}


def test_decoding_killed_before_any_of_its_file_operations_ends_in_the_same_files(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "job", ignore=lambda _, names: [n for n in names if "greedy-" in n])
    command = [sys.executable, "-m", "tests.bench.crashes", "--stages", "6", "6", "--folder", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"decode: (\d+) operations, 0 wrong", done.stdout)[1]) > 5


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


def test_two_jobs_at_once_do_the_work_once_and_end_in_the_same_table(tmp_path):
    command = [sys.executable, "-m", "local.run", "-m", *TINY, "logger=csv", "arm=masked", "seed=1"]
    runs = [
        subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    for stage in STAGES:
        assert sum(f"] {stage}: done in" in output for output in outputs) == 1, stage
    assert any("waiting for process" in output and "pretrain of masked seed=1" in output for output in outputs)
    tables = [output.rpartition("] report: ")[2].split("\n", 1)[1] for output in outputs]
    assert tables[0] == tables[1] and "WER %" in tables[0] and "masked" in tables[0]


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
