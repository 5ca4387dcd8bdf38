"""TIMIT as the LDC lays it out and as copies of it lie on disks; its phones, folded and scored."""

import json
import re
import shutil
from pathlib import Path

import pytest
import soundfile
import yaml
from hydra import compose, initialize_config_dir

from local.config import CONF, plain
from local.corpora.timit import Timit
from local.errors import InputError
from local.manifest import Utterance
from local.scoring import write_scores
from local.text import decode, encode_all, fold
from tests.conftest import here
from tests.test_lexicon import needs_kenlm, needs_module

DEV, TEST = ["faem0", "marc0"], ["fblv0", "madd0"]  # the speakers that the sample files as TEST


@pytest.fixture
def sample(librispeech) -> Path:
    return librispeech.parent / "TIMIT"


def corpus(root: Path, transcript: str = "phones", dev=DEV, test=TEST) -> Timit:
    return Timit("timit", str(root), 16000, transcript, dev, test)


def split_ids(found: Timit) -> dict[str, list[str]]:
    return {split: [u.id for u in found.utterances(split)] for split in ("train", "dev", "test")}


def units(name: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose("config", ["recipe=timit", f"units={name}"]), "units")


def test_splits_share_no_speaker_and_hold_no_sentence_that_all_speakers_read(sample):
    found = split_ids(corpus(sample))
    assert {split: len(ids) for split, ids in found.items()} == {"train": 96, "dev": 16, "test": 16}
    speakers = {split: {key[:5] for key in ids} for split, ids in found.items()}
    assert speakers["dev"] == set(DEV) and speakers["test"] == set(TEST) and len(speakers["train"]) == 12
    assert not any("_sa" in key for ids in found.values() for key in ids)
    moved = split_ids(corpus(sample, dev=["MADC0"], test=TEST))
    assert len(moved["train"]) == 88 and {key[:5] for key in moved["dev"]} == {"madc0"}


def test_the_published_lists_have_their_published_sizes():
    settings = yaml.safe_load((CONF / "corpus" / "timit.yaml").read_text())
    dev, test = set(settings["dev_speakers"]), set(settings["test_speakers"])
    assert len(dev) == 50 and len(test) == 24 and not dev & test
    assert sum(name[0] == "f" for name in test) == 8  # a woman and two men of each of eight regions


def test_a_copy_in_lower_case_and_riff_with_doubled_suffixes_gives_the_same(sample, tmp_path):
    for path in sample.glob("*/DR[27]/*/*"):
        target = tmp_path / path.relative_to(sample).as_posix().lower()
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".WAV":
            samples, rate = soundfile.read(path, dtype="int16")
            soundfile.write(target.with_name(path.name + ".wav"), samples, rate)
        else:
            shutil.copy(path, target)
    for split in ("dev", "test"):
        theirs, ours = (list(corpus(root).utterances(split)) for root in (sample, tmp_path))
        assert [(u.id, u.text, u.duration, u.gender) for u in ours] == [
            (u.id, u.text, u.duration, u.gender) for u in theirs
        ]
        assert {Path(u.audio).name[-8:] for u in ours} == {".WAV.wav"}


def test_stage_1_keeps_the_times_of_all_phones_and_stage_4_probes_them(sample, tmp_path):
    small = ["autoencoder.updates=2", "autoencoder.check_every=2", "autoencoder.width=16", "arm=masked"]
    here(tmp_path, 1, 4, "recipe=timit", f"corpus.root={sample}", *SMALL, *small, tiny=[])
    (data,) = (path for path in tmp_path.glob("data/timit-*") if path.is_dir())
    labeled = {}
    for split in ("train", "dev"):
        found: dict[str, list[tuple[int, int, str]]] = {}
        for line in (data / split / "phones.ctm").read_text().splitlines():
            key, channel, begin, duration, phone = line.split()
            assert channel == "1" and not {*begin, *duration} - {*"0123456789."}
            begin, end = 16000 * float(begin), 16000 * (float(begin) + float(duration))
            found.setdefault(key, []).append((round(begin), round(end), phone))
        assert list(found) == [line.split()[0] for line in (data / split / "utt2spk").open()]
        for key, spans in found.items():
            (path,) = sample.glob("*/*/{}/{}.PHN".format(*key.upper().split("_")))
            rows = [line.split() for line in path.read_text().splitlines()]
            assert spans == [(int(begin), int(end), phone) for begin, end, phone in rows]
        labeled[split] = found
    assert json.loads((data / "done.json").read_text())["outputs"]["dev/phones.ctm"]
    (path,) = tmp_path.glob("exp/pretrain/masked-*/bottleneck/timit-*/quality.json")
    quality = json.loads(path.read_text())
    scoring, seconds = units("phones39")["scoring"], {}
    for spans in labeled["dev"].values():
        for begin, end, phone in spans:
            name = fold(phone, scoring)
            seconds[name] = seconds.get(name, 0) + (end - begin) * bool(name)
    share = max(seconds.values()) / sum(seconds.values())
    for row in (quality, quality["features"]):
        assert row["phone_chance"] == pytest.approx(share, abs=0.02) and row["phone_accuracy"] > share
    assert quality["features"]["phone_accuracy"] > 0.4


def test_words_are_an_alternative_to_phones(sample):
    (phones,) = (u for u in corpus(sample).utterances("dev") if u.id == "faem0_si1392")
    (words,) = (u for u in corpus(sample, "words").utterances("dev") if u.id == "faem0_si1392")
    spoken = (sample / "TEST/DR2/FAEM0/SI1392.TXT").read_text().split(maxsplit=2)[2]
    assert words.text.split() == re.sub("[^A-Z' ]", "", spoken.upper()).split()
    assert phones.phones.startswith("0.00000 0.13400 h#\n0.13400 0.01731 q\n") and not words.phones
    assert phones.text.startswith("h# q ax s ux m f ao r ix gcl z") and phones.text.endswith("h#")


@pytest.mark.parametrize("place", ["TRAIN", "TRAIN/DR1", "..", "../.."])
def test_a_root_a_level_or_two_off_is_found(sample, tmp_path, place):
    root = tmp_path / "a" / "TIMIT"
    root.parent.mkdir()
    shutil.copytree(sample, root)
    assert split_ids(corpus(root / place)) == split_ids(corpus(sample))


def test_a_root_of_documentation_alone_says_what_was_looked_for(tmp_path):
    (tmp_path / "x/y/TIMIT/DOC").mkdir(parents=True)
    (tmp_path / "x/y/TIMIT/README.DOC").write_text("The DARPA TIMIT Acoustic-Phonetic Continuous Speech Corpus")
    with pytest.raises(InputError, match=r"looked for TRAIN/DR1/<speaker> .*found DOC, README.DOC; set corpus.root"):
        here(tmp_path, 0, 1, "recipe=timit", f"corpus.root={tmp_path}/x/y/TIMIT", tiny=[])
    assert not list(tmp_path.glob("data/timit-*"))


def test_a_prompt_that_two_splits_read_is_found_though_their_phones_differ(sample, tmp_path):
    root = tmp_path / "TIMIT"
    shutil.copytree(sample, root)
    for speaker in ("FAEM0", "FBLV0"):  # of dev and of test; the sentence is FVMH0's, of train
        path = next(root.glob(f"TEST/*/{speaker}/SX*.WAV"))
        for part in (path, path.with_suffix(".PHN")):
            part.rename(part.with_stem("SX116"))
    settings = ["recipe=timit", f"corpus.root={root}", "corpus.dev_speakers=[faem0]", "corpus.test_speakers=[fblv0]"]
    with pytest.raises(InputError) as error:
        here(tmp_path, 1, 1, *settings, "arm=none", tiny=[])
    found = {line.split(";")[0] for line in str(error.value).splitlines()}  # dev and test may
    pairs = [(a, b) for a in ("pretrain", "train") for b in ("dev", "test")]
    assert found == {f"{a} and {b} share 1 sentence, such as sx116" for a, b in pairs}


def test_speakers_that_a_copy_lacks_are_named_with_those_it_has(sample):
    with pytest.raises(InputError, match=r"2 of 3 speakers of corpus.test_speakers are not there: .*choose among: fae"):
        list(corpus(sample, test=["MDAB0", "felc0", "faem0"]).utterances("test"))


def test_every_broken_sentence_is_listed(sample, tmp_path):
    root = tmp_path / "TIMIT"
    shutil.copytree(sample / "TEST", root / "TEST")
    folder = root / "TEST/DR2/FAEM0"
    first, second, third, fourth, fifth, sixth, seventh = sorted(folder.glob("S[IX]*.WAV"))[:7]
    first.unlink()
    second.with_suffix(".PHN").write_text("0 100 h#\n100 sh\n")
    samples, _ = soundfile.read(third, dtype="int16")
    soundfile.write(third, samples[::2], 8000, format="WAV")
    fourth.unlink()
    fourth.symlink_to(fourth.name)
    fifth.with_suffix(".PHN").write_text("0 900 h#\n800 700 sh\n")
    sixth.with_suffix(".PHN").write_text("500 900 h#\n400 950 sh\n")
    seventh.with_suffix(".PHN").write_text("9999999 10000000 h#\n")
    found = list(corpus(root).utterances("dev"))
    errors = [str(one) for one in found if isinstance(one, InputError)]
    assert len(found) == 16 and len(errors) == 7
    for message in (
        f"{first.stem}.PHN: no .wav file beside it", f"{second.stem}.PHN:2: '100 sh', expected",
        f"{third.name}: 1 channel(s) at 8000 Hz, expected 1 at 16000 Hz", f"{fourth.name}: unreadable audio",
        f"{fifth.stem}.PHN: '800 700 sh' is before", f"{sixth.stem}.PHN: '400 950 sh' is before",
        f"{seventh.stem}.PHN: '9999999 10000000 h#' is before",
    ):  # fmt: skip
        assert any(message in error for error in errors), message


def test_the_folding_keeps_every_phone_but_the_glottal_stop():
    """Lee and Hon (1989): 61 phones to 48 to 39, which agree with each other."""
    raw, trained, scored = (units(f"phones{size}") for size in (61, 48, 39))
    assert [len(one["inventory"]) for one in (raw, trained, scored)] == [61, 48, 39]
    for phone in raw["inventory"]:
        once, twice = fold(phone, raw["scoring"]), fold(fold(phone, trained["folding"]), trained["scoring"])
        assert once == twice == fold(phone, scored["folding"])
        assert once in scored["inventory"] or (phone, once) == ("q", "")
    assert {fold(p, trained["folding"]) for p in raw["inventory"]} - {""} == set(trained["inventory"])
    assert {fold(p, raw["scoring"]) for p in raw["inventory"]} - {""} == set(scored["inventory"])
    same = ("ih ix", "ah ax ax-h", "aa ao", "sh zh", "uw ux", "er axr", "m em", "hh hv", "pcl tcl h# pau epi sil cl")
    for group in same:  # the paper's own groups
        assert len({fold(phone, raw["scoring"]) for phone in group.split()}) == 1


@pytest.mark.parametrize("size", [61, 48, 39])
def test_every_transcript_can_be_encoded_and_decodes_to_itself_folded(sample, size):
    chosen = units(f"phones{size}")
    utterances = list(corpus(sample).utterances("train"))
    labels = encode_all(utterances, chosen["inventory"], chosen["folding"])
    for utterance, row in zip(utterances, labels, strict=True):
        assert decode(row, chosen["inventory"]) == fold(utterance.text, chosen["folding"])
        assert fold(decode(row, chosen["inventory"]), chosen["scoring"]) == fold(utterance.text, chosen["scoring"])


def test_a_symbol_outside_the_phones_names_its_utterance():
    chosen = units("phones48")
    with pytest.raises(InputError, match="^a-1: 'xx' in its transcript"):
        encode_all([Utterance("a-1", "a", "x", 1.0, "h# xx q aa h#")], chosen["inventory"], chosen["folding"])


def test_phones_are_scored_by_phone(tmp_path):
    scoring = units("phones48")["scoring"]
    reference, hypothesis = fold("h# sh ix hv ae dcl q h#", scoring), fold("sil zh ih hh ah sil sil", scoring)
    write_scores(tmp_path, {"a-1": reference}, {"a-1": hypothesis}, {"a-1": "a"}, "PER")
    assert (tmp_path / "wer").read_text() == "%PER 14.29 [ 1 / 7, 0 ins, 0 del, 1 sub ]\n"


SMALL = [
    *(
        "corpus.dev_speakers=[faem0]",
        "corpus.test_speakers=[fblv0]",
        "recognizer.updates=2",
        "recognizer.check_every=2",
    ),
    *("recognizer.width=16", "recognizer.encoder.width=16", "machine.workers=1"),
]


def test_from_the_sample_to_a_phone_error_rate(sample, tmp_path):
    here(tmp_path, 1, 7, "arm=none", "recipe=timit", f"corpus.root={sample}", *SMALL, tiny=[])
    for split in ("dev", "test"):
        (score,) = tmp_path.glob(f"exp/timit/*/none-*/greedy-*/score/{split}")
        assert re.match(r"%PER \d+\.\d\d \[ \d+ / \d+, ", (score / "wer").read_text())
        spoken = set((score / "ref.trn").read_text().split())
        assert {"sil", "ih"} <= spoken and not spoken & {"h#", "ix", "q", "tcl"}


@needs_kenlm
@needs_module
def test_a_language_model_of_phones_is_of_those_that_the_recognizer_emits(sample, tmp_path, caplog):
    settings = ["arm=none", "recipe=timit", f"corpus.root={sample}", "units=phones48", "decoder=beam_lm", *SMALL]
    few = ["decoder.splits=[dev]", "decoder.beam=4", "decoder.lm_weight=[1.0]", "decoder.word_score=[0.0,1.0]"]
    here(tmp_path, 1, 7, *settings, *few, tiny=[])
    assert "unigrams" not in caplog.text  # which SpeechBrain warns are few
    (lm,) = tmp_path.glob("exp/lm/ngram-*")
    assert set((lm / "words").read_text().split()) <= set(units("phones48")["inventory"])
    (made,) = tmp_path.glob("exp/timit/*/none-*/beam_lm-*")
    trials = json.loads((made / "tuning.json").read_text())["dev"]
    assert len(trials) == 2 and (made / "score/dev/wer").read_text().startswith(f"%PER {trials[0]['wer']:.2f} ")


def test_a_decoder_that_spells_words_is_refused_for_phones_before_anything_is_made(sample, tmp_path):
    with pytest.raises(InputError, match="^decoder=lexicon spells words in characters, .*; use decoder=beam_lm, or"):
        here(tmp_path, 1, 7, "arm=none", "recipe=timit", f"corpus.root={sample}", "decoder=lexicon", *SMALL, tiny=[])
    assert not (tmp_path / "data").exists() and not list(tmp_path.glob("exp/lm/*"))


@needs_kenlm
def test_with_words_as_transcripts_it_finds_words(sample, tmp_path):
    words = ("corpus.transcript=words", "units=characters", "decoder=lexicon", "decoder.splits=[dev]")
    here(tmp_path, 1, 7, "arm=none", "recipe=timit", f"corpus.root={sample}", *words, *SMALL, tiny=[])
    (made,) = tmp_path.glob("exp/timit/*/none-*/lexicon-*")
    (lm,) = tmp_path.glob("exp/lm/ngram-*")
    (text,) = tmp_path.glob("data/timit-*/train/text")
    assert set((lm / "words").read_text().split()) == {w for line in text.open() for w in line.split()[1:]}
    assert (made / "score/dev/wer").read_text().startswith("%WER ")


def test_an_encoder_pretrained_on_another_corpus_serves(sample, corpus):
    small = ["autoencoder.updates=2", "autoencoder.check_every=2", "autoencoder.width=16", "arm=masked"]
    here(corpus, 1, 2, "corpus=kaldi", f"corpus.root={corpus}/mine", "machine.workers=1", *small, tiny=[])
    (features,) = corpus.glob("data/kaldi-*/fbank-*")
    more = ["recipe=timit", f"corpus.root={sample}", f"unlabeled.features={features.relative_to(corpus)}"]
    here(corpus, 1, 7, *more, *SMALL, *small, tiny=[])
    (summary,) = corpus.glob("exp/pretrain/masked-*/summary.json")
    assert json.loads(summary.read_text())["hours"] == pytest.approx(3 / 3600)  # the other corpus's three seconds
    assert list(corpus.glob("exp/timit/*/masked-*/greedy-*/score/test/wer"))
