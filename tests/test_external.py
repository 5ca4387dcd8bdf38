"""The arm that reads the features of another toolkit."""

import json
import os
from pathlib import Path

import kaldiio
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from local import archive
from local.archive import frame_shift
from local.config import CONF
from local.errors import InputError
from local.stages.finetune import _aligned
from tests.conftest import borrow, here

SPLITS = ("pretrain", "train", "dev", "test")


def features(tiny: Path, split: str, monkeypatch) -> dict[str, np.ndarray]:
    (scp,) = tiny.glob(f"data/espeak-*/fbank-*/{split}/feats.scp")
    with monkeypatch.context() as patch:
        patch.chdir(tiny)
        return dict(kaldiio.load_scp(str(scp)))


@pytest.fixture
def job(tiny, tmp_path, monkeypatch) -> Path:
    """A folder with the tiny run's features, and in `theirs` every second frame of them without the last filter."""
    for split in SPLITS:
        (tmp_path / "theirs" / split).mkdir(parents=True)
        name = f"{tmp_path}/theirs/{split}/feats"
        frames = {key: value[::2, :-1] for key, value in features(tiny, split, monkeypatch).items()}
        kaldiio.save_ark(f"{name}.ark", frames, scp=f"{name}.scp", compression_method=2 if split == "test" else None)
    return borrow(tiny, tmp_path)


def settings(job: Path, *more: str) -> list[str]:
    small = ["recognizer.width=16", "recognizer.encoder.width=16", "recognizer.updates=2", "recognizer.check_every=1"]
    theirs = [f"autoencoder.scp={job}/theirs", "autoencoder.frame_shift=0.02"]
    tiny = [f"corpus.minutes.{split}={n}" for split, n in zip(SPLITS, (1, 0.7, 0.5, 0.7), strict=True)]
    return ["arm=external", "corpus.accents=1", *tiny, *theirs, *small, *more]


def run(job: Path, last: int, *more: str) -> None:
    here(job, 4, last, *more, tiny=settings(job))


def test_features_of_another_toolkit_go_through_to_a_score(tiny, job, monkeypatch):
    run(job, 7)
    assert list(job.glob("exp/espeak/labels-all-0/external-*/greedy-*/score/test/wer"))
    (copy,) = job.glob("exp/external/espeak-*/test")
    quality = json.loads((copy.parent / "quality.json").read_text())
    assert quality["dimensions"] == 79 and "reconstruction_error" not in quality  # there is no decoder
    monkeypatch.chdir(job)
    for split in ("dev", "test"):
        read = archive.read(copy.parent / split, "none")
        assert read.frame_shift == frame_shift(copy) == 0.02 and read.width == 79
        expected = features(tiny, split, monkeypatch)
        for key, offset, count in zip(read.ids, read.offsets.tolist(), read.lengths.tolist(), strict=True):
            rounded = 0.5 if split == "test" else 0  # theirs is compressed there
            assert np.allclose(read.frames[offset : offset + count], expected[key][::2, :-1], atol=rounded)


def test_what_can_be_aligned_is_asked_of_what_they_have_of_an_utterance(job, monkeypatch):
    frames = kaldiio.load_mat((job / "theirs/train/feats.scp").read_text().split()[1])
    key = spoil(job, "train", 0, other(job, "short", frames[:-3]))
    run(job, 4)
    monkeypatch.chdir(job)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*settings(job), "seed=1"])
    labels = [([1, 2] * len(frames))[: -(-len(frames) // 2)]]  # as many as all of its frames can take
    assert _aligned(cfg, Path(cfg.dirs.features) / "train", [key], labels, 2) == [0]
    with pytest.raises(InputError, match="CTC can align none of 1"):
        _aligned(cfg, Path(cfg.dirs.bottleneck) / "train", [key], labels, 2)


def test_one_scp_may_hold_all_splits(job, caplog):
    scps = [(job / "theirs" / split / "feats.scp").read_text() for split in SPLITS]
    (job / "all.scp").write_text("".join(scps))
    run(job, 4, f"autoencoder.scp={job}/all.scp")
    assert "bottleneck: done in" in caplog.text


@pytest.mark.parametrize("name", ["feats.scp", "feats.ark"])
def test_a_changed_file_of_theirs_makes_the_copy_stale(job, caplog, name):
    run(job, 4)
    os.utime(job / "theirs/train" / name, (1, 1))
    caplog.clear()
    run(job, 4, "dry_run=true")
    assert caplog.messages[0].startswith("stale") and f"theirs/train/{name} changed" in caplog.messages[0]


def spoil(job: Path, split: str, number: int, change) -> str:
    """Put `change(line)` in the place of a line of an scp; return its utterance."""
    scp = job / "theirs" / split / "feats.scp"
    lines = scp.read_text().splitlines(keepends=True)
    key = lines[number].split()[0]
    lines[number] = change(lines[number])
    scp.write_text("".join(lines))
    return key


def other(job: Path, name: str, matrix: np.ndarray):
    """Write a matrix into a file of its own; a function to name it in a line."""
    kaldiio.save_mat(f"{job}/{name}.mat", matrix)
    return lambda line: f"{line.split()[0]} {job}/{name}.mat\n"


def test_all_that_is_wrong_with_their_features_is_listed_at_once_and_nothing_is_left(job):
    length, count = 30, len(next(iter(kaldiio.load_scp(str(job / "theirs/dev/feats.scp")).values())))
    pickled = job / "pickled.ark"
    with pickled.open("wb") as file:
        kaldiio.save_ark(file, {"x": np.zeros((3, 79))}, write_function="pickle")
    wrong = [
        (spoil(job, "train", 0, lambda line: ""), "no utterance"),
        (spoil(job, "dev", 0, other(job, "narrow", np.ones((count, 5), np.float32))), "5 dimensions, expected 79"),
        (spoil(job, "dev", 1, other(job, "short", np.ones((length, 79), np.float32))), "30 frames for"),
        (spoil(job, "test", 0, other(job, "odd", np.full((length, 79), np.nan, np.float32))), "not finite"),
        (spoil(job, "test", 1, lambda line: f"{line.split()[0]} touch {job}/run |\n"), "commands are not executed"),
        (spoil(job, "test", 2, lambda line: f"{line.split()[0]} {pickled}:2\n"), "no binary Kaldi matrix"),
        (spoil(job, "test", 3, lambda line: f"{line.split()[0]} {job}/gone.ark:7\n"), "gone.ark cannot be read"),
    ]  # fmt: skip
    cut = job / "cut.mat"
    kaldiio.save_mat(str(cut), np.ones((300, 79), np.float32))
    cut.write_bytes(cut.read_bytes()[:1000])
    wrong.append((spoil(job, "pretrain", 1, lambda line: f"{line.split()[0]} {cut}\n"), "a cut matrix"))
    with pytest.raises(InputError) as error:
        run(job, 4)
    lines = str(error.value).splitlines()
    for key, message in wrong:
        assert [line for line in lines if key in line and message in line], (key, message)
    assert len(lines) == len(wrong)
    assert not (job / "run").exists() and not list(job.glob("exp/external/espeak-*/"))


@pytest.mark.parametrize(
    "more, message",
    [
        ("autoencoder.scp=null", "autoencoder.scp=None: expected a feats.scp with all utterances"),
        ("autoencoder.scp=/no/such", "autoencoder.scp=/no/such: expected a feats.scp"),
        ("autoencoder.frame_shift=0.015", "frame_shift=0.015: expected a multiple of 0.01"),
        ("autoencoder.frame_shift=0.04", r"frames for .* expected about .*set autoencoder.frame_shift to theirs"),
        ("recognizer.frontend=finetuned", "arm external has no encoder to fine-tune"),
    ],
)
def test_settings_that_do_not_fit_are_refused(job, more, message):
    with pytest.raises(InputError, match=message):
        run(job, 5, more)
