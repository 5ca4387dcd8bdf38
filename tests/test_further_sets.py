"""More than one test set, side by side."""

import json

import pytest
import soundfile

from local.errors import InputError
from tests.conftest import here, recipe, speech

SMALL = ["recognizer.updates=2", "recognizer.check_every=1", "recognizer.width=16", "recognizer.encoder.width=16"]


@pytest.fixture
def far(corpus):
    """Settings of the small corpus with a second test set, `test_far`."""
    directory = corpus / "mine/far"
    directory.mkdir()
    for i in range(2):
        soundfile.write(directory / f"{i}.wav", speech(1, 50 + i), 16000)
    (directory / "wav.scp").write_text("".join(f"s9-{i} {directory}/{i}.wav\n" for i in range(2)))
    (directory / "utt2spk").write_text("s9-0 s9\ns9-1 s9\n")
    (directory / "text").write_text("s9-0 far away\ns9-1 far off\n")
    return ["corpus=kaldi", f"corpus.root={corpus}/mine", "+corpus.splits.test_far=far", *SMALL]


def test_each_test_set_gets_a_score_and_a_table_of_its_own(corpus, far):
    settings = [*far, "decoder.splits=[dev,test,test_far]", "arm=none"]
    here(corpus, 0, 7, *settings, tiny=[])
    (score,) = corpus.glob("exp/kaldi/*/none-*/greedy-*/score")
    totals = {path.parent.name: path.read_text().split()[5].strip(",") for path in score.glob("*/wer")}
    assert totals == {"dev": "9", "test": "9", "test_far": "4"}
    (prepared,) = corpus.glob("data/kaldi-*/summary.txt")
    (row,) = [line.split() for line in prepared.read_text().splitlines() if line.startswith("test_far")]
    assert row[1:7] == ["2", "0", "1", "0.00", "4", "3"] and row[7] == "100.00"  # of its words train has none
    recipe(corpus, "stage=8", "stop_stage=8", "seed=1", "logger=csv", *settings, tiny=[])
    found = json.loads((corpus / "exp/kaldi/report/results.json").read_text())
    assert {entry["split"]: entry["reference"]["words"] for entry in found} == {"test": 9, "test_far": 4}


@pytest.mark.parametrize(
    "source, message",
    [
        ("train", "^train and test_far share 1 speaker, such as s9; .*corpus.allow_overlap=.train-test_far-speakers"),
        ("test", "^test and test_far share 1 speaker, such as s9; .*corpus.allow_overlap=.test-test_far-speakers"),
    ],
)
def test_a_further_test_set_must_share_nothing_and_may_what_is_meant(corpus, far, source, message):
    table = corpus / f"mine/{source}/utt2spk"
    table.write_text("".join(f"{line.split()[0]} s9\n" for line in table.read_text().splitlines()))
    with pytest.raises(InputError, match=message):
        here(corpus, 1, 1, *far, tiny=[])
    here(corpus, 1, 1, *far, f"corpus.allow_overlap=[{source}-test_far-speakers]", tiny=[])


def test_audio_that_only_stage_2_can_compare_is_compared_with_a_further_test_set_too(corpus, far):
    for directory in ("train", "far"):  # parts of a longer recording have no digest in a header
        (samples, rate), out = soundfile.read(corpus / "mine/train/0.wav"), corpus / "mine" / directory
        soundfile.write(out / "0.wav", samples, rate)
    with pytest.raises(InputError, match="^train and test_far share 1 audio, such as"):
        here(corpus, 1, 2, *far, tiny=[])


def test_the_text_of_a_language_model_must_not_hold_a_further_test_set(corpus, far):
    (corpus / "lm.txt").write_text("hello\nFar  away\n")
    with pytest.raises(InputError, match="^lm and test_far share 1 sentence, such as FAR AWAY; "):
        here(corpus, 1, 1, *far, f"lm.text={corpus}/lm.txt", tiny=[])


def test_a_split_of_an_unknown_name_is_refused_in_one_line(corpus, far):
    with pytest.raises(InputError, match="^corpus.splits.tset: no split is called so; expected pretrain, train, dev, "):
        here(corpus, 1, 1, *far, "+corpus.splits.tset=far", tiny=[])


def test_decoding_a_split_that_is_not_there_is_refused_before_anything_is_trained(corpus, far):
    with pytest.raises(InputError, match="^decoder.splits: tset is no split of .*, test, test_far$"):
        here(corpus, 1, 1, *far, "decoder.splits=[dev,tset]", tiny=[])
