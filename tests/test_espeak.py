"""The embedded corpus, made small with the real synthesizer."""

import hashlib
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from local.corpora import espeak, opened
from local.errors import InputError

CONFIG = Path(__file__).parents[1] / "conf/corpus/espeak.yaml"


def configured(root: Path) -> espeak.Espeak:
    config = OmegaConf.load(CONFIG)
    config.root = str(root)
    return opened(OmegaConf.create({"corpus": config}))


def made(corpus: espeak.Espeak, root: Path, workers: int) -> espeak.Espeak:
    root.mkdir()
    corpus.download(root, workers)
    return replace(corpus, root=str(root))


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """One accent of every voice; train has several utterances a speaker."""
    root = tmp_path_factory.mktemp("espeak") / "two"
    minutes = {"pretrain": 0.1, "train": 0.6, "dev": 0.1, "test": 0.1}
    return made(replace(configured(root), minutes=minutes, accents=1), root, workers=2)


@pytest.fixture(scope="module")
def utterances(corpus):
    return {split: list(corpus.utterances(split)) for split in corpus.minutes}


def drawn(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [espeak.sentence(rng) for _ in range(count)]


def test_the_number_of_workers_changes_no_byte(corpus, utterances, tmp_path):
    assert any(utterance.id.endswith("-00001") for utterance in utterances["train"])
    one = made(corpus, tmp_path / "one", workers=1)
    assert digests(Path(one.root)) == digests(Path(corpus.root))


def test_another_seed_gives_other_sentences(corpus, utterances, tmp_path):
    other = made(replace(corpus, seed=corpus.seed + 1, minutes={"dev": 0.1}), tmp_path / "other", workers=1)
    assert {u.text for u in other.utterances("dev")}.isdisjoint(u.text for u in utterances["dev"])


def test_a_sentence_sounds_the_same_whatever_and_whenever_was_said_before():
    def say():  # the last two breathe: they draw random numbers
        return [espeak.synthesize("FLIGHT SIX", f"en-us+{name}", 50, 175) for name in ("m1", "klatt6", "Reed", "f5")]

    first = say()
    time.sleep(1.1)  # eSpeak seeds itself with the time in seconds
    assert all(np.array_equal(one, two) for one, two in zip(first, say(), strict=True))


def test_a_missing_wheel_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match="pip install espeakng-loader"):
        espeak.synthesize("ANNA", "en-us+f1", 50, 175)


def test_a_voice_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(InputError, match=r"en-us\+nobody"):
        espeak.synthesize("ANNA", "en-us+nobody", 50, 175)


def test_splits_share_no_voice_variant_and_no_speaker(tmp_path):
    corpus = configured(tmp_path)
    speakers = [(split, speaker) for split in corpus.minutes for speaker in corpus.speakers(split)]
    splits_of = {}
    for split, speaker in speakers:
        splits_of.setdefault(speaker.voice.split("+")[1], set()).add(split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert (
        len({speaker.id for _, speaker in speakers}) == len({speaker.voice for _, speaker in speakers}) == len(speakers)
    )


def test_the_default_test_split_has_at_least_40_speakers_of_both_genders(tmp_path):
    speakers = configured(tmp_path).speakers("test")
    assert len(speakers) >= 40
    assert {speaker.gender for speaker in speakers} == {"f", "m"}


def test_splits_share_no_noise_source(corpus):
    used = {}
    for index in Path(corpus.root).rglob("index.tsv"):
        split = index.parts[-3]
        for line in index.read_text().splitlines():
            used.setdefault(line.split("\t")[2], set()).add(split)
    assert len(used) > len(corpus.minutes)
    assert all(len(splits) == 1 for splits in used.values())


def test_every_sentence_is_used_in_the_split_that_its_hash_names(utterances):
    for split, found in utterances.items():
        assert {espeak.split_of(utterance.text) for utterance in found} == {split}


def test_text_is_150_to_250_word_types_of_capitals_and_apostrophes():
    words = {word for text in drawn(5000) for word in text.split(" ")}
    assert 150 <= len(words) <= 250
    assert all(re.fullmatch("[A-Z']+", word) for word in words)


def test_sentences_hardly_ever_recur():
    assert len(set(drawn(20000))) > 0.99 * 20000


def test_audio_is_16_khz_mono_neither_clipped_nor_silent(corpus, utterances):
    for utterance in (utterance for found in utterances.values() for utterance in found):
        info = soundfile.info(utterance.audio)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.frames == round(utterance.duration * 16000)
        samples = soundfile.read(utterance.audio, dtype="int16")[0].astype(int)
        assert np.abs(samples).max() < 32767
        assert np.sqrt(np.mean(samples**2.0)) > 100


def test_utterances_are_sorted_and_make_up_the_minutes_asked_for(corpus, utterances):
    for split, found in utterances.items():
        assert [u.id for u in found] == sorted(u.id for u in found)
        assert [u.speaker for u in found] == sorted(u.speaker for u in found)
        assert all(re.fullmatch(r"[A-Za-z0-9_.]+-\d+", u.id) and u.id.startswith(u.speaker + "-") for u in found)
        assert {u.speaker for u in found} == {speaker.id for speaker in corpus.speakers(split)}
        assert sum(u.duration for u in found) >= 60 * corpus.minutes[split]
