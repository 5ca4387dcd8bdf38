"""What a change makes stale, and what it leaves alone."""

import json
import os
import re
import shutil
import time

import pytest
import soundfile

from local.errors import InputError
from local.stage import STAGES
from tests.conftest import TINY, borrow, here, speech, whole
from tests.test_recipe import files


@pytest.mark.parametrize(
    "setting, first",
    [
        ("corpus.seed=2", "download"),
        ("features.extractor.n_mels=40", "features"),
        ("seed=3", "pretrain"),
        ("unlabeled.hours=0.01", "pretrain"),
        ("autoencoder.span=8", "pretrain"),
        ("labels.hours=0.01", "finetune"),
        ("recognizer.learning_rate=0.1", "finetune"),
        ("decoder.splits=[dev]", "decode"),
        ("machine.jobs=7", None),
        ("machine.workers=1", None),
        ("trainer.accelerator=cpu", None),
        ("logger=wandb", None),
    ],
)
def test_a_changed_setting_redoes_its_stage_and_those_after_it(tiny, caplog, setting, first):
    here(tiny, 0, 7, "arm=masked", "dry_run=true", setting)
    expected = STAGES.index(first) if first else len(STAGES)
    assert [line.startswith("done") for line in caplog.messages] == [i < expected for i in range(8)]


def test_what_a_changed_setting_redoes_leaves_all_that_was_there(own, caplog):
    before = files(own)
    here(own, 0, 7, "arm=none", "recognizer.learning_rate=0.1")
    after = files(own)
    assert before.items() <= after.items() and len(after) > len(before)
    assert caplog.text.count("done already") == 3 and caplog.text.count(": done in") == 3


def test_a_recognizer_made_anew_has_its_own_minutes_in_the_report_though_its_scores_are_the_same(copy):
    for summary in copy.glob("exp/espeak/*/none-*/summary.json"):
        summary.write_text(re.sub(r'("device_seconds": )\d', r"\g<1>9", summary.read_text()))
    output = whole(copy, "arm=none,masked,dense", "seed=1,2", "stage=8")
    entry = json.loads((copy / "exp/espeak/report/results.json").read_text())[0]
    (row,) = [row for row in entry["arms"] if row["arm"] == "none"]
    assert row["device_seconds"] >= 9 and "report: done in" in output


def test_another_root_makes_the_data_stale_and_the_former_ones_are_kept(corpus, caplog):
    settings = ("corpus=kaldi", "arm=none")
    here(corpus, 0, 2, *settings, f"corpus.root={corpus}/mine", tiny=[])
    shutil.copytree(corpus / "mine", corpus / "other")
    for table in (corpus / "other").glob("*/wav.scp"):
        table.write_text(table.read_text().replace("/mine/", "/other/"))
    caplog.clear()
    here(corpus, 0, 2, *settings, f"corpus.root={corpus}/other", "dry_run=true", tiny=[])
    assert [line.split()[0] for line in caplog.messages] == ["done", "stale", "stale"]
    assert "(root changed)" in caplog.messages[1] and "(prepare is stale)" in caplog.messages[2]
    here(corpus, 0, 2, *settings, f"corpus.root={corpus}/other", tiny=[])
    (kept,) = corpus.glob("data/kaldi-*.stale-1")
    (made,) = (path for path in corpus.glob("data/kaldi-*") if path != kept)
    assert "/mine/train/" in (kept / "train/wav.scp").read_text() and list(kept.glob("fbank-*/train/feats.scp"))
    assert "/other/train/" in (made / "train/wav.scp").read_text()


def test_what_is_refused_moves_nothing_aside_and_a_folder_of_ones_own_stays(corpus, caplog):
    settings = ("corpus=kaldi", "arm=none")
    (corpus / "mine/done.json").write_text("{}")  # it may be another clone's
    here(corpus, 0, 2, *settings, f"corpus.root={corpus}/mine", tiny=[])
    (corpus / "other").mkdir()
    with pytest.raises(InputError, match="no such folder"):
        here(corpus, 0, 2, *settings, f"corpus.root={corpus}/other", tiny=[])
    caplog.clear()
    here(corpus, 0, 2, *settings, f"corpus.root={corpus}/mine", "dry_run=true", tiny=[])
    assert [line.split()[0] for line in caplog.messages] == ["done"] * 3
    assert not list(corpus.rglob("*.stale-*"))


def test_a_table_that_comes_later_makes_the_data_stale(corpus, caplog):
    settings = ("corpus=kaldi", "arm=none", f"corpus.root={corpus}/mine")
    here(corpus, 0, 2, *settings, tiny=[])
    (corpus / "mine/train/spk2gender").write_text("s1 f\n")
    caplog.clear()
    here(corpus, 0, 2, *settings, "dry_run=true", tiny=[])
    assert [line.split()[0] for line in caplog.messages] == ["done", "stale", "stale"]


def test_archives_rebuilt_from_other_audio_make_stale_what_was_trained_on_them(corpus, caplog):
    small = [setting for setting in TINY if setting.startswith("recognizer.")]
    settings = ("corpus=kaldi", "arm=none", f"corpus.root={corpus}/mine")
    here(corpus, 0, 5, *settings, tiny=small)
    (lost,) = corpus.glob("data/kaldi-*/fbank-*/train/feats.0.ark")
    for audio, state in (("the same", "done"), ("other", "stale")):
        if audio == "other":
            soundfile.write(corpus / "mine/train/0.wav", speech(1, seed=99), 16000)
        lost.unlink()
        here(corpus, 0, 2, *settings, tiny=small)
        caplog.clear()
        here(corpus, 5, 5, *settings, "dry_run=true", tiny=small)
        assert caplog.messages[0].split()[0] == state, audio


def test_a_clock_that_jumps_makes_nothing_stale_and_changes_no_result(tiny, tmp_path, caplog, monkeypatch):
    folder = shutil.copytree(tiny, tmp_path / "job")
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (4e9, 4e9) if number % 2 else (1, 1))  # the year 2096, or 1970
    here(folder, 0, 7, "arm=none")
    assert caplog.text.count("done already") == 6
    now, begin = time.time(), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: now - 100 * (time.monotonic() - begin))
    (again := tmp_path / "again").mkdir()
    borrow(tiny, again)
    here(again, 5, 5, "arm=none")
    (path,) = again.glob("exp/espeak/*/none-*")
    (former,) = folder.glob(f"exp/espeak/*/{path.name}")
    assert (former / "recognizer.pt").read_bytes() == (path / "recognizer.pt").read_bytes()
