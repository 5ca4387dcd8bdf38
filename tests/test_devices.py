"""Trainings that several processes share: on a CPU, over gloo; tests/cluster/slurm.sh has them under srun."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from lightning_modules.batch import Batch, Batcher
from lightning_modules.fit import place
from local import archive
from local.ranks import tasks
from tests.conftest import borrow, recipe
from tests.test_augmentation import NEUTRAL, folders, stored  # noqa: F401
from tests.test_augmentation import batcher as audio_batcher
from tests.test_models import MODELS, configuration, data, samples  # noqa: F401
from tests.test_survival import start

EXACT = ("autoencoder.encoder.dropout=0", "recognizer.encoder.dropout=0", "seed=1", "trainer.accelerator=cpu")
TWO = (*EXACT, "trainer.devices=2")


def rows(batches: list[Batch]) -> list[str]:
    return [key for batch in batches if batch.rows.count for key in batch.ids]


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_every_utterance_comes_once_an_epoch_whatever_the_number_of_processes(data, processes):  # noqa: F811
    batcher = Batcher(data[0], 3000, seed=5, crop=200, labels=data[1])
    for step in range(len(batcher.plan(0))):
        whole, parts = batcher.at(step), [batcher.at(step, rank, processes) for rank in range(processes)]
        assert rows(parts) == whole.ids
        for part in parts:
            place = [whole.ids.index(key) for key in part.ids]
            assert torch.equal(part.features, whole.features[place])
            assert torch.equal(part.label_lengths, whole.label_lengths[place])
        assert len({len(part.ids) for part in parts if part.rows.count}) <= 2  # none has more to do
    assert sorted(rows([part for rank in range(processes) for part in batcher.all(rank, processes)])) == sorted(
        data[0].ids
    )


@pytest.mark.parametrize("labels", [None, 1])
def test_augmented_rows_are_those_of_the_augmented_batch(stored, folders, labels):  # noqa: F811
    more = folders | {"speeds": [0.9, 1.1], "share": 0.6}
    batcher = audio_batcher(stored("fbank"), crop=150, **more)
    batcher.labels = labels and [[1]] * len(batcher.data.ids)
    for step in range(3):
        whole, parts = batcher.at(step), [batcher.at(step, rank, 2) for rank in range(2)]
        for one, wholes in (("features", whole.features), ("target", whole.target)):
            if wholes is not None:
                found = torch.cat([getattr(part, one)[: part.rows.count] for part in parts])
                torch.testing.assert_close(found, wholes, atol=1e-4, rtol=0)  # a Fourier transform of another length


def test_an_archive_on_disk_gives_the_batches_of_one_in_memory_and_holds_none(tiny, stored, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tiny)
    (features,) = tiny.glob("data/espeak-*/fbank-*")
    read = archive.read(features / "train", "utterance", held=False)
    held, disk = (place(read, "auto", held) for held in (True, False))
    assert disk.frames.numel() == 0 and disk.width == held.width
    for one, other in zip(*(Batcher(each, 3000, 1, crop=100).all() for each in (held, disk)), strict=True):
        assert torch.equal(one.features, other.features)
    some = [5, 2, 9]
    ours, theirs = (Batcher(each.select(some), 3000, 1).at(0) for each in (held, disk))
    assert ours.ids == theirs.ids and torch.equal(ours.features, theirs.features)
    ours, theirs = (audio_batcher(stored("fbank"), crop=150, held=held) for held in (True, False))
    assert torch.equal(ours.at(1).features, theirs.at(1).features)


def test_an_archive_that_does_not_fit_stays_on_disk_and_that_is_said(tiny, monkeypatch, caplog):
    monkeypatch.chdir(tiny)
    (features,) = tiny.glob("data/espeak-*/fbank-*")
    read = archive.read(features / "train", "utterance", held=False)
    assert place(read, "auto").frames.numel() and not caplog.messages
    assert not place(replace(read, lengths=10**9 * read.lengths), "auto").frames.numel()
    assert f"{len(read.ids)} utterances do not fit into memory" in caplog.text


def step(module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """The loss of a training step without dropout, its gradients, and what the step leaves in the module."""
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    module.reseed(batch, "step", 0)
    loss = module.training_step(batch, 0)
    loss.backward()
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in module.named_parameters()}
    return found | {"loss": loss.detach()} | dict(module.named_buffers())


def process(rank: int, count: int, folder: Path, name: str, batcher: Batcher) -> None:
    """One of several, whose gradients are averaged as DistributedDataParallel averages them."""
    store = distributed.FileStore(str(folder / "store"), count)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=count)
    module, _ = MODELS[name]()
    found = step(module, batcher.at(0, rank, count))
    for parameter in dict(module.named_parameters()):
        distributed.all_reduce(found[parameter])
        found[parameter] /= count
    torch.save(found, folder / f"{rank}.pt")
    os._exit(0)


@pytest.mark.parametrize("count, seconds", [(2, 20), (3, 4)])  # in the second case one process has no row
@pytest.mark.parametrize("name", MODELS)
def test_processes_have_the_loss_and_the_gradient_of_one(name, count, seconds, data, samples, tmp_path):  # noqa: F811
    batcher = Batcher(samples if "waveform" in name else data[0], 100 * seconds, seed=1, labels=data[1])
    expected = step(MODELS[name]()[0], batcher.at(0))
    assert (len(batcher.at(0).ids) < count) == (count == 3)
    context = multiprocessing.get_context("fork")
    each = [context.Process(target=process, args=(rank, count, tmp_path, name, batcher)) for rank in range(count)]
    for one in each:
        one.start()
    for one in each:
        one.join()
    assert [one.exitcode for one in each] == [0] * count
    for rank in range(count):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            scale = 1e-5 * max(1.0, float(value.abs().max()))
            torch.testing.assert_close(found[key], value, atol=scale, rtol=1e-3, msg=lambda m, k=key: f"{k}: {m}")


def histories(folder: Path) -> list[list[dict]]:
    paths = sorted(folder.glob("exp/**/history.json"))
    return [[row | {"seconds": 0} for row in json.loads(path.read_text())] for path in paths]


def pid_of(process: subprocess.Popen, rank: int) -> int:
    """The process of a training that has this number."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    mine = [line.split() for line in listed.splitlines() if "local.ranks" in line]
    return sorted(int(pid) for pid, parent, *_ in mine if int(parent) == process.pid)[rank]


def test_two_processes_train_as_one_and_log_once_and_a_killed_one_ends_the_job_at_once(tiny, tmp_path):
    one, two = (borrow(tiny, tmp_path / name) for name in ("one", "two") if not (tmp_path / name).mkdir())
    longer = ("autoencoder.updates=30", "autoencoder.check_every=5", "arm=masked")
    recipe(one, "stage=3", "stop_stage=5", *EXACT, *longer)
    process = start(two, "stage=3", "stop_stage=3", *TWO, *longer)
    while not (last := list(two.glob("exp/**/last.ckpt"))):
        assert process.poll() is None
        time.sleep(0.02)
    killed = time.monotonic()
    os.kill(pid_of(process, 1), signal.SIGKILL)
    output = process.communicate()[0].splitlines()
    assert process.returncode == 1 and time.monotonic() - killed < 10  # what is waited for otherwise is half an hour
    errors = [line for line in output if "pretrain]" not in line][2:]
    assert len(errors) == 1 and "has died (process 1 of 2, by SIGKILL); run the same command again" in errors[0]
    assert last[0].exists() and not list(two.glob("exp/**/autoencoder.pt"))
    output = recipe(two, "stage=3", "stop_stage=5", *TWO, *longer)
    assert output.count("in 2 processes") == 2 and not re.search(r" pretrain\] 5/30", output)
    assert output.count(" 30/30 ") == 1 and output.count("finetune] 4/4") == 1
    for ours, theirs in zip(histories(one), histories(two), strict=True):
        assert len(ours) == len(theirs)
        for row, other in zip(ours, theirs, strict=True):
            assert other == pytest.approx(row, abs=1e-4)
    assert len(list(two.glob("exp/pretrain/*/wandb_id"))) == 1  # one run of W&B, though it was continued
    (name,) = {path.name.split("-")[-1] for path in two.glob("exp/pretrain/*/wandb/offline-run-*")}
    assert name == next(two.glob("exp/pretrain/*/wandb_id")).read_text()


@pytest.mark.parametrize(
    "settings, message",
    [
        (("trainer.accelerator=gpu", "trainer.devices=64"), "has .* GPUs for this process; ask for no more"),
        (("trainer.devices=0",), "trainer.devices=0: expected a whole number, 1 or more"),
        (("trainer.devices=two",), "trainer.devices=two: expected a number"),
        (("trainer.num_nodes=2",), "several nodes, but this is no SLURM job"),
        (("trainer.devices=2", "trainer.auto_batch=true"), "parts are for one device alone"),
    ],
)
def test_devices_that_are_not_there_are_refused_in_one_line(tiny, tmp_path, settings, message):
    folder = borrow(tiny, tmp_path)
    output = recipe(folder, "stage=3", "stop_stage=3", "arm=masked", "seed=1", *settings, status=1)
    assert re.fullmatch(f"error: .*{message}.*\n", output)
    assert not list(folder.glob("exp/pretrain/*.partial"))


def test_a_job_asks_for_as_many_tasks_as_a_training_has_processes():
    assert tasks(configuration()) == []
    found = tasks(configuration("trainer.devices=4", "trainer.num_nodes=2"))
    assert found == ["--nodes=2", "--ntasks-per-node=4"]
