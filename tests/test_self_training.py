"""Self-training: what a recognizer heard in the rest of `train` for transcripts."""

import errno
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from local.errors import InputError
from local.listing import digests
from local.tree import Tree
from tests.conftest import borrow, here, recipe
from tests.test_lexicon import needs_kenlm
from tests.test_models import configuration
from tests.test_survival import same

FEW = ("arm=none", "labels.hours=0.004")


def trained(folder: Path) -> set[Path]:
    """The directories of the recognizers that are done."""
    return {path.parent for path in folder.glob("exp/espeak/*/none-????????/recognizer.pt")}


def weights(folder: Path, *settings: str) -> dict[str, torch.Tensor]:
    """Of the recognizer that stage 5 makes."""
    before = trained(folder)
    here(folder, 5, 5, *settings)
    (made,) = trained(folder) - before
    return torch.load(made / "recognizer.pt", weights_only=True)["state"]


@pytest.fixture
def transcripts(tiny, tmp_path) -> list[str]:
    """The lines of `text` of `train`, in a folder with all features that is otherwise empty."""
    (train,) = borrow(tiny, tmp_path).glob("data/espeak-*/train/text")
    return train.read_text().splitlines()


def refuse(*_) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def written(folder: Path, lines: list[str]) -> str:
    (folder / "heard").write_text("".join(f"{line}\n" for line in lines))
    return "labels.hypotheses=heard"


def test_of_hypotheses_without_an_error_comes_what_all_labels_give(tmp_path, transcripts):
    full = weights(tmp_path, "arm=none")
    few = weights(tmp_path, *FEW)
    taught = weights(tmp_path, *FEW, written(tmp_path, transcripts))
    assert same(full, taught)
    assert not same(full, few)


def test_an_utterance_in_which_nothing_was_heard_is_left_out_and_counted(tmp_path, transcripts, caplog):
    caplog.set_level("INFO")
    here(tmp_path, 5, 5, *FEW, written(tmp_path, [line.split()[0] for line in transcripts]))
    (labeled,) = re.findall(r"finetune: (\d+) utterances, those without labels as heard has them", caplog.text)
    assert f"; {len(transcripts) - int(labeled)} left out, where nothing was heard" in caplog.text


def test_a_file_that_is_not_there_or_lacks_an_utterance_is_refused(tmp_path, transcripts):
    with pytest.raises(InputError, match=r"^labels.hypotheses=nowhere: no such file; train a recognizer on the labels"):
        here(tmp_path, 5, 5, *FEW, "labels.hypotheses=nowhere")
    with pytest.raises(InputError, match=r"^labels.hypotheses=heard: lacks \d+ of \d+ utterances without labels, as "):
        here(tmp_path, 5, 5, *FEW, written(tmp_path, transcripts[:2]))
    (tmp_path / "heard.ctm").write_text("utterance 1 0.0 0.5 WORD\n")
    with pytest.raises(InputError, match="^labels.hypotheses=heard.ctm: a CTM does not tell of utterances in which no"):
        here(tmp_path, 5, 5, *FEW, "labels.hypotheses=heard.ctm")
    assert not [path for path in tmp_path.glob("exp/espeak/*/none-*") if path.is_dir()]


def test_hypotheses_that_changed_make_the_recognizer_anew(tmp_path, transcripts, caplog):
    caplog.set_level("INFO")
    for lines in (transcripts, [f"{line} SO" for line in transcripts]):
        here(tmp_path, 5, 5, *FEW, written(tmp_path, lines))
    assert "heard changed" in caplog.text
    (made,) = trained(tmp_path)
    name = str(made.relative_to(tmp_path))
    assert not Tree(tmp_path / "exp").outdated(name)
    written(tmp_path, transcripts)
    assert Tree(tmp_path / "exp").outdated(name) == "heard changed"


def test_a_killed_training_begins_anew_if_the_hypotheses_changed_meanwhile(tmp_path, transcripts):
    settings = (*FEW, written(tmp_path, transcripts))
    expected = weights(tmp_path, *settings)
    (made,) = trained(tmp_path)
    shutil.rmtree(made)
    written(tmp_path, [line.split()[0] for line in transcripts])  # in which nothing was heard
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match="No space left"):
        patch.setattr("local.stages.finetune._save", refuse)
        here(tmp_path, 5, 5, *settings)
    assert (made.with_name(f"{made.name}.partial") / "checkpoints/last.ckpt").exists()
    written(tmp_path, transcripts)
    assert same(expected, weights(tmp_path, *settings))


def test_the_report_is_of_dev_and_counts_the_teacher(tmp_path, transcripts):
    settings = ("seed=1", "logger=csv", *FEW)
    recipe(tmp_path, *settings, "stage=5", "stop_stage=7", "decoder.splits=[dev,train]")
    (heard,) = tmp_path.glob("exp/espeak/*/none-*/greedy-*/train/text")
    assert len(heard.read_text().splitlines()) == len(transcripts)
    both = f"labels.hypotheses=null,{heard.relative_to(tmp_path)}"
    recipe(tmp_path, *settings, both, "stage=5", "stop_stage=8", "decoder.splits=[dev,train]")
    (entry,) = json.loads((tmp_path / "exp/espeak/report/results.json").read_text())
    assert entry["split"] == "dev"
    teacher, taught = sorted(entry["arms"], key=lambda row: row["updates"])
    assert taught["updates"] == 2 * teacher["updates"] and taught["device_seconds"] > teacher["device_seconds"]


def test_self_trained_arms_are_compared_with_each_other_and_with_no_other(tmp_path):
    def shared(arm: str, rest: str) -> str:
        return digests(configuration(f"arm={arm}", f"rest={rest}", "sweep=self_training"))["shared"]

    assert (
        shared("none", "heard") == shared("masked", "heard") != shared("none", "unused") == shared("masked", "unused")
    )


def test_the_sweep_reads_what_its_first_command_makes(tmp_path):
    settings = ("sweep=self_training", "recipe=mini_librispeech", "dry_run=true")
    first = ("rest=unused", "decoder=lexicon", "decoder.splits=[dev,train]")
    lines = recipe(tmp_path, *settings, *first, "stage=6", "stop_stage=6", tiny=[]).splitlines()
    taught = {line.split(" (")[0].split()[-1] for line in lines if " decode " in line}
    output = recipe(tmp_path, *settings, "stage=5", "stop_stage=5", status=3, tiny=[])
    asked = set(re.findall(r"^error: labels.hypotheses=(.*)/train/text: no such file", output, re.MULTILINE))
    assert len(taught) == 2 and asked == taught


@needs_kenlm
def test_train_is_not_heard_with_a_language_model_of_its_transcripts(tmp_path, transcripts):
    here(tmp_path, 5, 5, *FEW)
    settings = (*FEW, "decoder=lexicon", "lm.text=lm.txt")
    (tmp_path / "lm.txt").write_text("".join(f"{line.partition(' ')[2]}\n" for line in transcripts))
    with pytest.raises(InputError, match=r"^lm.text=lm.txt: has \d+ transcripts of train beside those with labels"):
        here(tmp_path, 6, 6, *settings, "decoder.splits=[dev,train]")
    assert not [*tmp_path.glob("exp/espeak/*/none-*/lexicon-*/text")]
    here(tmp_path, 6, 6, *settings)  # test is in no such text
    (tmp_path / "lm.txt").write_text("THE QUICK BROWN FOX\n" * 5)
    here(tmp_path, 6, 6, *settings, "decoder.splits=[dev,train]")
    (heard,) = tmp_path.glob("exp/espeak/*/none-*/lexicon-*/train/text")
    assert len(heard.read_text().splitlines()) == len(transcripts)
