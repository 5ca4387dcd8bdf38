"""Disks that are full or closed, files that were cut or lost."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch

from local.errors import InputError
from tests.conftest import borrow, here, recipe
from tests.test_survival import LONGER, same, start, weights


@pytest.fixture
def disk(tmp_path):
    """A function that gives a small file system of its own, or more room to one that it gave."""
    mounted = []

    def room(folder: Path, size: str) -> Path:
        folder.mkdir(exist_ok=True)
        options = f"remount,size={size}" if folder in mounted else f"size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small file system needs the right to mount one: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield room
    for folder in set(mounted):
        subprocess.run(["umount", folder], check=True)


def one_line(output: str, *messages: str) -> None:
    last = output.splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in output and "Logging error" not in output, output
    assert all(message in last for message in messages), last


def test_a_full_disk_is_one_line_and_with_room_the_data_come_out_the_same(tiny, tmp_path, caplog, disk):
    data = disk(tmp_path / "data", "1m")
    full = ("No space left on device", "make room")
    one_line(recipe(tmp_path, "stop_stage=2", status=1), "data/audio/espeak-", *full)
    assert all(path.suffix == ".partial" for path in data.glob("audio/[!.]*"))
    audio = sum(p.stat().st_blocks for p in tiny.glob("data/audio/**/*")) // 2
    disk(data, f"{audio + 2000}k")
    with pytest.raises(InputError, match="/fbank-.*: No space left on device; make room"):
        here(tmp_path, 0, 2)
    disk(data, "64m")
    caplog.clear()
    here(tmp_path, 0, 2)
    assert "download: done already" in caplog.text
    for path in tiny.glob("data/**/*.ark"):
        assert path.read_bytes() == (tmp_path / path.relative_to(tiny)).read_bytes()


def test_a_disk_that_fills_up_in_a_training_is_one_line_and_with_room_it_continues(tiny, tmp_path, disk):
    calm, full = (borrow(tiny, tmp_path / name) for name in ("calm", "full") if not (tmp_path / name).mkdir())
    exp = disk(full / "exp", "64m")
    settings = ("arm=masked", *LONGER, "autoencoder.updates=200")
    process = start(full, "stage=3", "stop_stage=3", "seed=1", "logger=csv", *settings)
    while not list(exp.glob("**/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    with pytest.raises(OSError, match="No space"), open(exp / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    output = process.communicate()[0]
    assert process.returncode == 1
    one_line(output, "exp/pretrain/masked-", "No space left on device", "make room")
    (exp / "filler").unlink()
    assert list(exp.glob("**/last.ckpt"))
    for folder in (calm, full):
        here(folder, 3, 3, *settings)
    assert same(weights(calm, "autoencoder"), weights(full, "autoencoder"))


def test_without_the_right_to_write_it_says_where_and_what_is_done_stays_usable(tiny, tmp_path):
    # Root is refused nothing unless it gives up that capability.
    ordinary = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.getuid() == 0 else ()
    tmp_path.chmod(0o555)
    one_line(recipe(tmp_path, "stop_stage=0", status=1, under=ordinary), "exp: Permission denied; get access to it")
    tmp_path.chmod(0o755)
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o555)
    one_line(recipe(tmp_path, "stop_stage=0", status=1, under=ordinary), "data/audio: Permission denied")
    (tmp_path / "data").chmod(0o755)
    shutil.copytree(tiny / "data", tmp_path / "data", dirs_exist_ok=True)
    subprocess.run(["chmod", "-R", "a-w", tmp_path / "data"], check=True)
    assert recipe(tmp_path, "stop_stage=2", under=ordinary).count("done already") == 3


def test_a_cut_model_is_trained_again_and_what_follows_from_the_same_bits_stays(tiny, tmp_path, caplog):
    folder = shutil.copytree(tiny, tmp_path / "job")
    models = {path: torch.load(path, weights_only=True)["state"] for path in folder.glob("exp/pretrain/masked-*/*.pt")}
    for path in models:
        path.write_bytes(path.read_bytes()[:-100])
    for path in folder.glob("exp/pretrain/masked-*/bottleneck/*/done.json"):
        path.unlink()
    with pytest.raises(InputError, match=r"autoencoder.pt: gone or cut; run stage 3 \(pretrain\) again"):
        here(folder, 4, 4, "arm=masked")
    for seed in (1, 2):
        caplog.clear()
        here(folder, 3, 7, "arm=masked", f"seed={seed}")
        assert "autoencoder.pt is gone or cut" in caplog.text and "kept the former exp/pretrain/masked-" in caplog.text
        assert caplog.text.count("done already") == 3  # finetune, decode, score
    assert len(models) == 2
    assert all(same(state, torch.load(path, weights_only=True)["state"]) for path, state in models.items())


def test_files_that_are_gone_are_missed_by_the_stage_that_reads_them(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "job")
    (lost,) = folder.glob("data/espeak-*/fbank-*/train/feats.0.ark")
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(InputError, match=r"feats.0.ark: gone or cut; run stage 2 \(features\) again"):
        here(folder, 5, 5, "arm=none", "seed=3")
    here(folder, 2, 2)
    assert lost.read_bytes() == content
