"""Kaldi data directories as users have them."""

import pytest
import soundfile

from local.corpora.kaldi import Kaldi
from local.errors import InputError
from tests.conftest import here, speech


def kaldi(folder, resample: bool = False, **splits) -> Kaldi:
    return Kaldi("kaldi", str(folder / "mine"), 16000, resample, {"train": "train"} | splits)


def test_several_directories_with_segments_genders_and_odd_ids(corpus):
    more = corpus / "mine/more"
    more.mkdir()
    soundfile.write(more / "tape.ogg", speech(4), 16000)
    (more / "wav.scp").write_text(f"tape_1 {more}/tape.ogg\n")
    (more / "segments").write_text("a.b-1_x tape_1 0.5 1.75\na.b-1_y tape_1 2 -1\n")
    (more / "utt2spk").write_text("a.b-1_x a.b-1\na.b-1_y a.b-1\n")
    (more / "text").write_text("a.b-1_x one two\na.b-1_y three\n")
    (more / "spk2gender").write_text("a.b-1 f\n")
    found = list(kaldi(corpus, train=["train", "more"]).utterances("train"))
    assert [u.id for u in found] == ["s1-0", "s1-1", "s1-2", "a.b-1_x", "a.b-1_y"]
    cut, rest = found[3:]
    assert (cut.recording, cut.start, cut.duration, cut.gender, cut.text) == ("tape_1", 0.5, 1.25, "f", "ONE TWO")
    assert (rest.recording, rest.start, rest.duration) == ("tape_1", 2.0, 2.0) and rest.audio == cut.audio
    assert found[0].recording == "" and found[0].duration == 1.0


def test_every_broken_segment_is_listed(corpus):
    train = corpus / "mine/train"
    rows = ["u-1 s1-0 0.2 0.8", "u-2 s1-0 0.5 7", "u-3 nowhere 0 1", "u-4 s1-1 0.9 0.1", "u-5 s1-1 0", "u-6 s1-2 0 1"]
    (train / "segments").write_text("\n".join(rows) + "\n")
    (train / "utt2spk").write_text("".join(f"u-{i} u\n" for i in range(1, 6)))
    (train / "text").write_text("u-1 hello\nu-7 hello\n")
    found = list(kaldi(corpus).utterances("train"))
    assert [u.id for u in found if not isinstance(u, InputError)] == ["u-1"]
    errors = "\n".join(str(one) for one in found if isinstance(one, InputError))
    for message in (
        "u-2 is 0.5 s to 7.0 s of s1-0, of 1.00 s", "u-3 is of nowhere, which wav.scp lacks", "u-4 's1-1 0.9 0.1', exp",
        "u-5 's1-1 0', expected", "utt2spk: no line for u-6", "text: u-7 has no audio",
    ):  # fmt: skip
        assert message in errors, message


def test_another_rate_is_refused_unless_it_may_be_resampled(corpus, caplog):
    soundfile.write(corpus / "mine/train/1.wav", speech(1)[:8000], 8000)
    found = list(kaldi(corpus).utterances("train"))
    assert [str(one) for one in found if isinstance(one, InputError)] == [
        f"{corpus}/mine/train/1.wav: 1 channel(s) at 8000 Hz, expected 1 at 16000 Hz; "
        "convert it, or set corpus.resample=true (of corpus=kaldi)"
    ]
    found = list(kaldi(corpus, resample=True).utterances("train"))
    assert [u.duration for u in found] == [1.0, 1.0, 1.0]
    assert "audio at [8000] Hz, to be resampled to 16000 Hz" in caplog.text


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "NIST", "OGG"])
def test_a_cut_file_is_named_whose_header_is_whole(corpus, kind):
    path = corpus / "mine/train/1.wav"
    soundfile.write(path, speech(10), 16000, format=kind)
    assert len([one for one in kaldi(corpus).utterances("train") if not isinstance(one, InputError)]) == 3
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (error,) = (str(one) for one in kaldi(corpus).utterances("train") if isinstance(one, InputError))
    assert error.startswith(f"{path}: cut short (") and error.endswith("restore or remove it")


def test_a_wav_file_written_into_a_pipe_is_whole(corpus):
    path = corpus / "mine/train/1.wav"
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4  # as sox and ffmpeg leave it
    path.write_bytes(content)
    assert [u.duration for u in kaldi(corpus).utterances("train")] == [1.0] * 3


@pytest.mark.parametrize("place", ["..", "train", "../.."])
def test_a_root_a_level_or_two_off_is_found_unless_it_has_some_of_the_directories(corpus, place):
    splits = {split: split for split in ("pretrain", "train", "dev", "test")}
    (corpus / "mine" / "x").mkdir()
    expected = [u.id for u in kaldi(corpus, **splits).utterances("train")]
    root = corpus / "mine" / place if place != "../.." else corpus / "mine/x/y"
    root.mkdir(exist_ok=True)
    off = Kaldi("kaldi", str(root), 16000, False, splits)
    assert [u.id for u in off.utterances("train")] == expected and len(expected) == 3
    (root / "dev").mkdir()
    with pytest.raises(InputError, match="train: no such folder for corpus.splits.train; .* holds: .*dev.*; set corp"):
        list(Kaldi("kaldi", str(root), 16000, False, splits).utterances("train"))


def test_names_that_are_no_text_and_links_that_go_in_circles(corpus):
    train = corpus / "mine/train"
    (train / "0.wav").unlink()
    (train / "0.wav").symlink_to("0.wav")
    found = list(kaldi(corpus).utterances("train"))
    assert "0.wav: unreadable audio" in str(found[0]) and [u.id for u in found[1:]] == ["s1-1", "s1-2"]
    (train / "wav.scp").write_bytes(b"s1-0 /x/\xff.wav\n")
    with pytest.raises(InputError, match="train/wav.scp: cannot be read as UTF-8 text"):
        list(kaldi(corpus).utterances("train"))


def test_a_corpus_of_one_utterance_a_split_goes_through(corpus):
    for table in (corpus / "mine").glob("*/*"):
        if table.suffix != ".wav":
            table.write_text(table.read_text().splitlines(keepends=True)[0])
    small = ["recognizer.updates=2", "recognizer.check_every=1", "recognizer.width=16", "recognizer.encoder.width=16"]
    here(corpus, 0, 7, "corpus=kaldi", f"corpus.root={corpus}/mine", "arm=none", *small, tiny=[])
    (wer,) = corpus.glob("exp/kaldi/*/none-*/greedy-*/score/test/wer")
    words = len((corpus / "mine/test/text").read_text().split()) - 1
    assert f" / {words}, " in wer.read_text().splitlines()[0]
