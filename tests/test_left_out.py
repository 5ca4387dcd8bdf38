"""What stage 2 leaves out under corpus.on_error=skip is in no later stage, and is recorded; audio of many hours."""

import json
import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from local import audio
from local.errors import InputError
from local.manifest import read_table
from tests.conftest import here, speech

SMALL = [
    *("autoencoder.updates=2", "autoencoder.check_every=2", "autoencoder.width=16", "autoencoder.bottleneck=8"),
    *("recognizer.updates=2", "recognizer.check_every=2", "recognizer.width=16", "recognizer.encoder.width=16"),
]


def run(folder: Path, first: int, last: int, *more: str) -> None:
    settings = ["corpus=kaldi", f"corpus.root={folder}/mine", "machine.workers=1", *SMALL, *more]
    here(folder, first, last, *settings, tiny=[])


def spoil(path: Path, how: str) -> str:
    """Break one file of the corpus behind a header that stays good; what is said of it."""
    samples = speech(1, 100 + len(how))
    if how in ("undecodable", "cut", "short"):
        soundfile.write(path, samples, 16000, format="FLAC")
        whole = path.read_bytes()
        path.write_bytes({
            "undecodable": whole[:9000] + b"\0" * (len(whole) - 9000),
            "cut": whole[:9000],
            "short": whole[:22] + (24000).to_bytes(4) + whole[26:],  # the header's count of samples
        }[how])  # fmt: skip
        return "audio does not decode"
    broken, message = {
        "zeros": (0 * samples, "all 16000 samples are zero"),
        "nan": (np.where(np.arange(16000) == 7, np.nan, samples), "1 of 16000 samples are no number"),
        "clipped": (np.sign(samples), "all 16000 samples are at full scale"),
    }[how]
    soundfile.write(path, broken, 16000, format="WAV", subtype="FLOAT" if how == "nan" else "PCM_16")
    return message


@pytest.mark.parametrize("arm", ["none", "masked", "masked_frozen"])
def test_what_stage_2_leaves_out_is_in_no_later_stage_and_recorded(corpus, caplog, arm):
    broken = [("pretrain", 0, "zeros"), ("pretrain", 1, "nan"), ("train", 0, "cut"), ("train", 1, "short"),
              ("dev", 1, "clipped"), ("test", 2, "undecodable")]  # fmt: skip
    said = [(split, number, spoil(corpus / f"mine/{split}/{number}.wav", how)) for split, number, how in broken]
    run(corpus, 1, 7, "corpus.on_error=skip", f"arm={arm}")
    (features,) = corpus.glob("data/kaldi-*/fbank-*")
    for split, number, message in said:
        lines = (features / split / "left_out").read_text().splitlines()
        assert any(line.startswith(f"{corpus}/mine/{split}/{number}.wav: ") and message in line for line in lines)
        count = sum(split == other for other, *_ in broken)
        assert len(lines) == count and len(read_table(features / split / "feats.scp")) == 3 - count
        held_out = [r for r in caplog.records if r.getMessage().startswith(f"{split}: {count} utterances are left out")]
        assert [r.levelno for r in held_out] == [logging.WARNING if split in ("dev", "test") else logging.INFO]
    for split, kept in (("dev", ["s2-0", "s2-2"]), ("test", ["s3-0", "s3-1"])):
        (trn,) = corpus.glob(f"exp/kaldi/*/{arm}-*/greedy-*/score/{split}/ref.trn")
        assert [line.split()[-1] for line in trn.read_text().splitlines()] == [f"({key})" for key in kept]
    for summary in corpus.glob("exp/pretrain/*/summary.json"):
        assert json.loads(summary.read_text())["hours"] == pytest.approx(1 / 3600)


def test_by_default_they_are_an_error_with_a_line_each(corpus):
    said = [spoil(corpus / f"mine/dev/{number}.wav", how) for number, how in enumerate(("cut", "short"))]
    with pytest.raises(InputError) as error:
        run(corpus, 1, 2, "arm=none")
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and all(message in line for message, line in zip(said, lines, strict=True))


def test_a_split_of_which_stage_2_leaves_nothing_is_an_error_that_lists_it(corpus):
    for number in range(3):
        spoil(corpus / f"mine/test/{number}.wav", "zeros")
    with pytest.raises(InputError) as error:
        run(corpus, 1, 2, "arm=none", "corpus.on_error=skip")
    *lines, last = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{corpus}/mine/test/{number}.wav" for number in range(3)]
    assert last.startswith("test: none of its 3 utterances can be used") and not list(corpus.glob("data/*/fbank-*"))


def test_hours_of_labels_are_counted_among_what_is_left(corpus):
    spoil(corpus / "mine/train/0.wav", "zeros")
    with pytest.raises(InputError, match="h asked for, but there are 0.001 h"):
        run(corpus, 1, 5, "arm=none", "corpus.on_error=skip", f"labels.hours={3 / 3600}")


@pytest.fixture
def tape(corpus) -> Path:
    """The corpus, with a recording of four hours in place of a file: silence but for a second in its middle."""
    path = corpus / "mine" / "train" / "0.wav"
    soundfile.write(path, np.zeros(16000), 16000)
    head = bytearray(path.read_bytes()[:44])
    size = 2 * 16000 * 4 * 3600
    head[4:8], head[40:44] = (size + 36).to_bytes(4, "little"), size.to_bytes(4, "little")
    with open(path, "wb") as file:  # sparse
        file.write(head)
        file.seek(44 + size // 2)
        file.write((32767 * speech(1)).astype("<i2").tobytes())
        file.truncate(44 + size)
    return path


def test_four_hours_in_one_utterance_are_refused(corpus, tape):
    with pytest.raises(InputError) as error:
        run(corpus, 1, 2, "arm=none")
    assert str(error.value) == (
        f"{tape}: 14400.000 s of audio, expected at most 300 s; "
        "cut it (segments of a Kaldi data directory do), or raise corpus.max_duration"
    )
    run(corpus, 1, 1, "arm=none", "corpus.max_duration=15000")
    run(corpus, 1, 2, "arm=none", "corpus.on_error=skip")
    found = [read_table(path) for path in corpus.glob("data/kaldi-*/fbank-*/train/feats.scp")]
    assert [sorted(table) for table in found] == [["s1-1", "s1-2"]]


def test_a_part_of_four_hours_is_read_without_the_rest(corpus, tape):
    train = corpus / "mine/train"
    (train / "segments").write_text("s1-0 s1-0 7200.0 7201.0\ns1-1 s1-1 0 -1\ns1-2 s1-2 0 -1\n")
    run(corpus, 1, 2, "arm=none")
    (durations,) = corpus.glob("data/kaldi-*/train/utt2dur")
    assert read_table(durations)["s1-0"] == "1.00000" and list(corpus.glob("data/kaldi-*/fbank-*/train/feats.scp"))
    for path in (tape, corpus / "hour.flac"):
        if path.suffix == ".flac":
            with soundfile.SoundFile(path, "w", 16000, 1) as file:
                for minute in range(60):
                    file.write(speech(1) if minute == 30 else np.zeros(60 * 16000, np.int16))
        start = 7200.0 if path is tape else 1800.0
        tracemalloc.start()
        samples = audio.read(path, 16000, start, 1.0)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        np.testing.assert_allclose(samples, speech(1), atol=1e-4)
        assert most < 4 * len(samples) + 100_000
