"""What stage 1 finds in a corpus: leaks between splits, what is broken, what a person wants to know of it."""

import gzip
import logging
import os
import re
import shutil
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local import audio, audit, manifest
from local.errors import InputError
from local.ledger import Ledger
from local.manifest import SPLITS, Utterance
from local.stages import prepare
from local.validation import violations
from tests.conftest import here, speech


def mine(folder: Path, *more: str) -> Path:
    """Stage 1 on one's own data; the directory it makes."""
    here(folder, 1, 1, "corpus=kaldi", f"corpus.root={folder / 'mine'}", "arm=none", *more, tiny=[])
    (data,) = (path for path in folder.glob("data/kaldi-*") if ".stale" not in path.name)
    return data


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def refusal(folder: Path, *more: str) -> str:
    with pytest.raises(InputError) as error:
        mine(folder, *more)
    assert not list(folder.glob("data/kaldi-*"))
    return str(error.value)


def test_the_summary_counts_each_split_and_the_words_that_train_lacks(corpus, caplog):
    edit(corpus / "mine/dev/text", "s2-0 hello there dev", "s2-0 one two three four hello there dev")
    text = (mine(corpus) / "summary.txt").read_text()
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    hours = f"{3 / 3600:.2f}"
    assert rows["train"] == ["3", "0", "1", hours, "9", "3", "-", "1.00", "1.00", "1.00", "16"]
    assert rows["dev"] == ["3", "0", "1", hours, "13", "7", f"{100 * 7 / 13:.2f}", "1.00", "1.00", "1.00", "16"]
    assert rows["shared"] == ["by", "ids", "speakers", "books", "sentences", "sessions", "audio"]
    pairs = ("pretrain-train", "pretrain-dev", "pretrain-test", "train-dev", "train-test", "dev-test")
    assert all(rows[pair] == ["0", "0", "?", "0", "?", "0"] for pair in pairs)
    assert text in caplog.text


def test_a_sentence_of_test_in_train_is_refused_unless_just_that_is_allowed(corpus):
    for split in ("train", "test"):
        text = corpus / "mine" / split / "text"
        text.write_text("".join(f"{line.split()[0]} don't ask me {i}\n" for i, line in enumerate(text.open())))
    assert refusal(corpus, "corpus.allow_overlap=[train-dev-sentences]") == (
        "train and test share 3 sentences, such as DON'T ASK ME 0; what is measured on must be in no other split: "
        "take it out, or if that is meant, set corpus.allow_overlap=[train-test-sentences]"
    )
    assert "3 allowed" in (mine(corpus, "corpus.allow_overlap=[train-test-sentences]") / "summary.txt").read_text()


@pytest.mark.parametrize(
    "more, message",
    [
        ("corpus.allow_overlap=[train-tests-speaker]", "the nearest is 'train-test-speakers'"),
        ("corpus.on_error=ignore", "corpus.on_error=ignore: expected stop or skip"),
        ("corpus.max_duration=null", "corpus.max_duration=None: expected a number of seconds"),
    ],
)
def test_a_check_that_cannot_be_is_named(corpus, more, message):
    assert message in refusal(corpus, more)


def test_the_same_samples_in_another_flac_file_are_found(corpus):
    mine_ = corpus / "mine"
    samples = speech(2, 7)
    for split, level in (("train", 0.0), ("dev", 1.0)):
        soundfile.write(mine_ / split / "x.flac", samples, 16000, compression_level=level)
        edit(mine_ / split / "wav.scp", str(mine_ / split / "1.wav"), str(mine_ / split / "x.flac"))
    assert (mine_ / "train/x.flac").read_bytes() != (mine_ / "dev/x.flac").read_bytes()
    assert refusal(corpus).startswith("train and dev share 1 audio, such as ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.integers(1, 8), st.sampled_from([8000, 11025, 16000, 44100, 96000]), st.integers(1, 5000))
def test_headers_tell_what_libsndfile_tells(tmp_path, channels, rate, frames):
    for suffix in ("flac", "wav"):
        soundfile.write(tmp_path / f"a.{suffix}", np.zeros((frames, channels)), rate)
        assert audio.header(tmp_path / f"a.{suffix}")[:3] == (rate, channels, frames)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=300), st.booleans())
def test_samples_have_the_digest_that_their_flac_file_has(tmp_path, values, equal):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.array(values, np.int16), 16000)
    read = soundfile.read(path, dtype="float32")[0]
    assert audio.header(path) == (16000, 1, len(read), audit.digest(read))
    for name, found in (("dev", audit.digest(read)), ("test", audit.digest(read if equal else read[:-1]))):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "audio_digest").write_text(f"{name}-1 {found}\n")
    places = {split: [tmp_path / split, tmp_path / "none"] for split in ("dev", "test")}
    assert len(audit.audio_leaks(places, [], tmp_path / "scratch")) == equal
    assert not audit.audio_leaks(places, ["dev-test-audio"], tmp_path / "scratch")


def test_books_are_a_warning_sessions_an_error_and_pretrain_may_contain_train(tmp_path, caplog):
    with Ledger(tmp_path / "ledger") as ledger:
        for split, chapter, book in (
            ("pretrain", "1", "7"),
            ("train", "1", "7"),
            ("dev", "2", "7"),
            ("test", "2", "8"),
        ):
            ledger.add(split, Utterance(f"{split}-1", split, f"/{split}", 1.0, split, session=chapter, book=book))
        found = audit.shared(ledger)
    assert found["sessions"]["pretrain", "train"] == (1, "pretrain pretrain-1 and train train-1")
    assert found["books"]["train", "dev"] == (1, "7")
    (leak,) = audit.leaks(found, [])
    assert leak.startswith("dev and test share 1 session, such as dev dev-1 and test test-1;")
    assert "train and dev share 1 book, such as 7" in caplog.text


def test_timits_sa_sentences_are_found(tmp_path):
    if "HOURGLASS_DATA" not in os.environ:
        pytest.skip("HOURGLASS_DATA does not name a folder with TIMIT in it")
    parts = {"pretrain": "TRAIN/DR1", "train": "TRAIN", "dev": "TEST/DR2", "test": "TEST/DR7"}
    root = Path(os.environ["HOURGLASS_DATA"]) / "TIMIT"
    for split, part in parts.items():
        directory = tmp_path / "mine" / split
        directory.mkdir(parents=True)
        found = {f"{path.parent.name}-{path.stem}": path for path in (root / part).rglob("*.WAV")}
        texts = {key: path.with_suffix(".TXT").read_text().split(maxsplit=2)[2].strip() for key, path in found.items()}
        (directory / "wav.scp").write_text("".join(f"{key} {path}\n" for key, path in found.items()))
        (directory / "utt2spk").write_text("".join(f"{key} {key.split('-')[0]}\n" for key in found))
        (directory / "text").write_text("".join(f"{key} {text}\n" for key, text in texts.items()))
    shared = {line.split(";")[0] for line in refusal(tmp_path).splitlines()}
    sentence = "DON'T ASK ME TO CARRY AN OILY RAG LIKE THAT."
    assert {
        f"{a} and {b} share 2 sentences, such as {sentence}" for a, b in audit.pairs(SPLITS) if b != "train"
    } == shared


@pytest.mark.parametrize("start, leak", [(1.5, False), (0.0, True)])
def test_parts_of_one_tape_share_a_session_and_the_same_part_its_audio(corpus, start, leak):
    soundfile.write(corpus / "tape.flac", speech(3), 16000)
    for split, first in (("train", start), ("dev", 0.0)):
        directory = corpus / "mine" / split
        (directory / "wav.scp").write_text(f"tape {corpus}/tape.flac\n")
        keys = manifest.read_table(directory / "utt2spk")
        rows = [f"{key} tape {first + 0.5 * i} {first + 0.5 * i + 0.4}\n" for i, key in enumerate(keys)]
        (directory / "segments").write_text("".join(rows))
    assert refusal(corpus).startswith("train and dev share 1 session, such as train s1-0 and dev s2-0; ")
    allowed = ["corpus=kaldi", f"corpus.root={corpus / 'mine'}", "corpus.allow_overlap=[train-dev-sessions]"]
    stages = (corpus, 1, 2, *allowed, "arm=none", "machine.workers=1")
    with pytest.raises(InputError, match="^train and dev share 3 audio, such as") if leak else nullcontext():
        here(*stages, tiny=[])


@pytest.mark.parametrize("suffix", [".txt", ".gz"])
def test_a_sentence_of_test_in_the_text_of_a_language_model_is_refused(corpus, caplog, suffix):
    text = corpus / f"lm{suffix}"
    with (gzip.open if suffix == ".gz" else open)(text, "wt") as file:
        file.write("Hello  there train\nhello there\nhello there test\n")
    assert mine(corpus, "corpus.allow_overlap=[lm-test-sentences]", f"lm.text={text}")
    assert re.search(r"shared by +sentences\nlm-pretrain +0\nlm-train +1\nlm-dev +0\nlm-test +1 allowed", caplog.text)
    with pytest.raises(InputError, match="^lm and test share 1 sentence, such as HELLO THERE TEST; what"):
        mine(corpus, f"lm.text={text}")
    text.write_bytes(text.read_bytes()[:-5] + b"\xff")
    with pytest.raises(InputError, match=f"^lm.text={text}: cannot be read as text"):
        mine(corpus, f"lm.text={text}")


def spoil(corpus: Path, split: str) -> None:
    """Break two of a split's three utterances: one has no audio, the text of one no letters."""
    number = SPLITS.index(split)
    (corpus / "mine" / split / "0.wav").unlink()
    edit(corpus / "mine" / split / "text", f"s{number}-1 hello there {split}", f"s{number}-1 ...")


def test_what_is_measured_on_is_not_pretrained_on_by_way_of_another_corpus(corpus):
    theirs = shutil.copytree(corpus / "mine", corpus / "theirs")
    shutil.copy(theirs / "test/0.wav", theirs / "pretrain/0.wav")
    for split in ("pretrain", "train", "dev", "test"):
        edit(theirs / split / "wav.scp", f"{corpus}/mine/", f"{corpus}/theirs/")
    for split in ("dev", "test"):  # of theirs, what they measure on is something else
        for number in range(3):
            soundfile.write(theirs / split / f"{number}.wav", speech(1, 70 + number + 10 * len(split)), 16000)
    settings = ["corpus=kaldi", "machine.workers=1", "arm=masked", "autoencoder.updates=0"]
    here(corpus, 1, 2, *settings, f"corpus.root={theirs}", "corpus.name=theirs", tiny=[])
    (features,) = corpus.glob("data/theirs-*/fbank-*")
    more = [*settings, f"corpus.root={corpus}/mine", f"unlabeled.features={features.relative_to(corpus)}"]
    with pytest.raises(InputError, match="pretrain and test share 1 audio, such as .*s0-0"):
        here(corpus, 1, 3, *more, tiny=[])
    assert not list(corpus.glob("exp/pretrain/*/"))
    here(corpus, 1, 3, *settings, f"corpus.root={theirs}", "corpus.name=theirs", tiny=[])  # for themselves they may
    with pytest.raises(InputError, match="pretrain and test share 1 audio"):
        here(corpus, 4, 4, *more, tiny=[])


def test_what_is_broken_is_left_out_and_recorded_if_that_is_wanted(corpus, caplog):
    spoil(corpus, "dev")
    assert len(refusal(corpus).splitlines()) == 2
    data = mine(corpus, "corpus.on_error=skip")
    assert [u.id for u in manifest.read(data / "dev")] == ["s2-2"] and len(manifest.read(data / "train")) == 3
    lines = (data / "dev" / "left_out").read_text().splitlines()
    assert "dev/0.wav: unreadable audio (the file is missing)" in lines[0]
    assert lines[1].startswith("s2-1: transcript '...' has no letter") and len(lines) == 2
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.getMessage().startswith("dev: 2 utterances are left out")


def test_a_split_of_which_nothing_is_left_is_refused_all_the_same(corpus):
    spoil(corpus, "test")
    (corpus / "mine/test/2.wav").write_bytes(b"")
    message = refusal(corpus, "corpus.on_error=skip")
    assert len(message.splitlines()) == 4 and "test: none of its 3 utterances can be used" in message


def test_audio_changed_in_place_makes_the_data_directory_stale(corpus, caplog):
    data = mine(corpus)
    before = (data / "done.json").stat().st_mtime_ns
    assert mine(corpus) == data and (data / "done.json").stat().st_mtime_ns == before
    soundfile.write(corpus / "mine/dev/1.wav", speech(2, 99), 16000)
    mine(corpus)
    assert "(audio changed)" in caplog.text
    assert {u.id: u.duration for u in manifest.read(data / "dev")} == {"s2-0": 1, "s2-1": 2, "s2-2": 1}


def test_a_corpus_without_a_broken_header_is_read_from_headers_alone(corpus):
    path = corpus / "mine" / "dev" / "long.flac"
    soundfile.write(path, speech(4, 5), 16000)
    path.write_bytes(path.read_bytes()[:5000])
    edit(corpus / "mine/dev/wav.scp", str(corpus / "mine/dev/1.wav"), str(path))
    assert manifest.read(mine(corpus) / "dev")[1].duration == 4


@pytest.mark.parametrize(
    "text, audio, message",
    [
        ("A\u200bB", "/a", "'\\u200b' in its transcript, expected printable text"),
        ("A\tB", "/a", "'\\t' in its transcript"),
        ("ABC \N{REPLACEMENT CHARACTER}", "/a", "expected printable text"),
        ("-- ' --", "/a", "has no letter"),
        ("A <s> B", "/a", "<s> in its transcript is a reserved symbol"),
        ("", "/a", "empty transcript (/a)"),
        ("A", "/\udcff.wav", "/\\udcff.wav: its name is not UTF-8"),
        ("A", "~/a.wav", "without ~ or |"),
        ("A", "rm -rf / |", "without ~ or |"),
    ],
)
def test_an_utterance_that_no_data_directory_can_hold_is_named(text, audio, message):
    (line,) = manifest.problems(Utterance("u", "s", audio, 1.0, text), 0.1, 300, labeled=True)
    assert message in line and line.encode()


names = st.from_regex(r"[A-Za-z0-9_.-]{1,4}", fullmatch=True)
utterance = st.builds(
    Utterance, names, names, st.just("/a b.flac"), st.floats(0.1, 1e4), st.sampled_from(["", "ÀB C", "it's"]),
    st.just("m"), recording=st.sampled_from(["", "r", "R"]), start=st.floats(0, 1e4),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(utterance, min_size=1, max_size=8, unique_by=lambda u: u.id))
def test_what_is_written_holds_kaldis_rules_and_reads_back(tmp_path, utterances):
    utterances = [u for u in utterances if u.id not in ("r", "R")] or utterances[:0]
    if not utterances:
        return
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    utterances = sorted(utterances, key=lambda u: u.id.encode())
    manifest.write(tmp_path / "x", utterances)
    assert not list(violations(tmp_path / "x"))
    labeled, cut = all(u.text for u in utterances), any(u.recording for u in utterances)
    for found, u in zip(manifest.read(tmp_path / "x"), utterances, strict=True):
        assert (found.id, found.speaker, found.audio, found.gender) == (u.id, u.speaker, u.audio, u.gender)
        assert found.text == (u.text if labeled else "")
        assert found.recording == (u.recording or (u.id if cut else ""))
        assert abs(found.duration - u.duration) < 1e-4 and abs(found.start - (u.start if cut else 0)) < 1e-4


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("utt2spk", "a-1 a", "a-1 b"), ("utt2spk", "a-1 a", "a-3 a"), ("utt2spk", "a-1 a", "a-1 a x"),
        ("spk2utt", "a a-1 a-2", "a a-1"), ("spk2utt", "b b-1\n", ""), ("text", "a-2 X\n", ""), ("text", "X", "X #0"),
        ("text", "b-1 X\n", "b-1 X"), ("utt2dur", "1.0", "0.0"), ("utt2dur", "b-1", "b-2"), ("wav.scp", "/", "~/"),
        ("wav.scp", "r /r\n", ""), ("wav.scp", "r /r\n", "r /r\ns /s\n"), ("segments", "a-1 r 1.0", "a-1 r 9.0"),
        ("spk2gender", "b m", "b x"), ("spk2gender", "b m\n", ""), ("spk2gender", "b m\n", "b m\nb m\n"),
        ("phones.ctm", "a-1 1 0.0 0.5 sh", "a-0 1 0.0 0.5 sh"), ("phones.ctm", "a-1 1 0.0", "a-1 1 0.7"),
        ("phones.ctm", "a-1 1 0.0 0.5 sh", "b-1 1 0.0 0.5 sh"), ("phones.ctm", "0.0 0.5", "0.0 -0.5"),
        ("phones.ctm", "0.0 0.5", "0.5"), ("phones.ctm", "0.0 0.5", "nan 0.5"), ("phones.ctm", "0.0 0.5", "0.0 x"),
    ],
)  # fmt: skip
def test_each_rule_of_kaldi_is_held(tmp_path, name, old, new):
    keys, spans = ("a-1", "a-2", "b-1"), {"a-1": "0.0 0.5 sh\n0.5 0.5 ix", "b-1": "0.1 0.1 q"}  # of a-2 none are known
    more = {"recording": "r", "start": 1.0}
    rows = [Utterance(key, key[0], "/r", 1.0, "X", "m", **more, phones=spans.get(key, "")) for key in keys]
    manifest.write(tmp_path, rows)
    assert not list(violations(tmp_path))
    edit(tmp_path / name, old, new)
    assert list(violations(tmp_path))


def peak(folder: Path, count: int) -> int:
    """Bytes that Python holds at most while stage 1 takes in, compares, writes and validates `count` utterances."""

    class Corpus:
        def utterances(self, split):
            for i in range(count if split == "train" else 1):
                key = f"{split}-{i // 50:04d}-{i:06d}"
                yield Utterance(key, key[:-7], str(audio), 1.0, f"WORD {i % 100}", session=key[:-7])

    audio = folder / "a.flac"
    folder.mkdir()
    soundfile.write(audio, speech(1), 16000)
    tracemalloc.start()
    with Ledger(folder / "ledger") as ledger:
        for split in SPLITS:
            assert prepare._fill(ledger, split, Corpus(), 0.1, 300) == ([], [])
            prepare._write(folder / split, ledger, split, [])
            assert not list(violations(folder / split))
        audit.shared(ledger)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_an_utterance_more_takes_the_memory_of_its_id(tmp_path):
    small, large = (peak(tmp_path / str(count), count) for count in (1000, 4000))
    assert large - small < 3000 * 100
