"""Data directories, archives, features and label subsets."""

import kaldiio
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from local import archive, audio, manifest
from local.features import Fbank
from local.labels import subset
from tests.conftest import recipe

SETTINGS = {"sample_rate": 16000, "n_mels": 80, "win_length": 25, "hop_length": 10}


def reference_fbank(samples: np.ndarray) -> np.ndarray:
    """Log-mel filterbanks in dB with numpy alone: Hamming window of 400, FFT of 400, hop of 160, triangles on mel."""
    padded = np.pad(samples.astype(np.float64), 200)
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = range(0, len(padded) - 399, 160)
    power = np.abs(np.fft.rfft(np.stack([padded[s : s + 400] * window for s in starts]))) ** 2
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 82)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    center, width = hertz[1:-1], np.diff(hertz)[:-1]
    slope = (np.linspace(0, 8000, 201)[:, None] - center) / width
    decibels = 10 * np.log10(np.maximum(power @ np.maximum(0, np.minimum(1 + slope, 1 - slope)), 1e-10))
    return np.maximum(decibels, decibels.max() - 80)


@pytest.fixture(scope="module")
def recordings(tiny) -> list[np.ndarray]:
    (directory,) = tiny.glob("data/espeak-*/dev")
    return [audio.read(tiny / u.audio, 16000) for u in manifest.read(directory)]


def test_filterbanks_agree_with_an_independent_computation(recordings):
    for samples in recordings[:3]:
        (frames,) = Fbank(**SETTINGS)([samples])
        expected = reference_fbank(samples)
        assert frames.shape == expected.shape == (1 + len(samples) // 160, 80)
        assert np.abs(frames - expected).max() < 0.05  # dB


def test_a_batch_gives_each_utterance_what_it_gets_alone(recordings):
    extract = Fbank(**SETTINGS)
    for together, samples in zip(extract(recordings[:4]), recordings[:4], strict=True):
        np.testing.assert_allclose(together, extract([samples])[0], atol=1e-3)


def test_cmvn_gives_mean_zero_and_variance_one_over_what_it_names(tiny, monkeypatch):
    monkeypatch.chdir(tiny)
    (features,) = tiny.glob("data/espeak-*/fbank-*")
    one = archive.read(features / "dev", "utterance")
    for offset, length in zip(one.offsets, one.lengths, strict=True):
        part = one.frames[offset : offset + length]
        torch.testing.assert_close(part.mean(0), torch.zeros(80), atol=1e-3, rtol=0)
        torch.testing.assert_close(part.std(0), torch.ones(80), atol=1e-2, rtol=0)
    whole = archive.read(features / "pretrain", "global").frames
    torch.testing.assert_close(whole.mean(0), torch.zeros(80), atol=1e-3, rtol=0)
    by_speaker = archive.read(features / "dev", "speaker")
    speaker = [by_speaker.speakers[0] == s for s in by_speaker.speakers]
    parts = [by_speaker.frames[o : o + n] for o, n in zip(by_speaker.offsets, by_speaker.lengths, strict=True)]
    pooled = torch.cat([part for part, same in zip(parts, speaker, strict=True) if same])
    torch.testing.assert_close(pooled.mean(0), torch.zeros(80), atol=1e-3, rtol=0)
    raw = kaldiio.load_scp(str(features / "dev" / "feats.scp"))
    assert raw[one.ids[0]].dtype == np.float32 and raw[one.ids[0]].shape[0] == int(one.lengths[0])


def test_archives_do_not_depend_on_the_number_of_workers(tiny, tmp_path):
    (tmp_path / "data" / "audio").mkdir(parents=True)
    (audio_root,) = tiny.glob("data/audio/espeak-*")
    (tmp_path / "data" / "audio" / audio_root.name).symlink_to(audio_root)
    recipe(tmp_path, "stop_stage=2", "machine.workers=1")
    first = sorted(p for p in tmp_path.glob("data/espeak-*/fbank-*/*/*") if p.is_file())
    assert {p.parent.name for p in first} == {"pretrain", "train", "dev", "test"}
    for path in first:
        assert path.read_bytes() == (tiny / path.relative_to(tmp_path)).read_bytes(), path


def test_a_data_directory_reads_back_and_is_sorted_as_kaldi_wants(tmp_path):
    utterances = [
        manifest.Utterance(f"{s}-{i}", s, f"/x/{s}{i}.flac", 1.5, f"WORD {i}", g)
        for s, g in (("b", "m"), ("a", "f"), ("B", ""))
        for i in range(3)
    ]
    manifest.write(tmp_path, utterances)
    assert sorted(manifest.read(tmp_path), key=lambda u: u.id) == sorted(utterances, key=lambda u: u.id)
    for name in ("wav.scp", "text", "utt2spk", "spk2utt", "utt2dur", "spk2gender"):
        keys = [line.split()[0].encode() for line in (tmp_path / name).read_text().splitlines()]
        assert keys == sorted(keys)
    assert (tmp_path / "spk2utt").read_text().splitlines()[0] == "B B-0 B-1 B-2"


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0.5, 20)), min_size=1, max_size=40),
    st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 3), st.randoms(),
)  # fmt: skip
def test_label_subsets_are_nested_and_do_not_depend_on_the_order(rows, one, two, seed, random):
    utterances = [manifest.Utterance(f"s{s}-{i}", f"s{s}", "x", d, "A") for i, (s, d) in enumerate(rows)]
    hours = sum(u.duration for u in utterances) / 3600
    shuffled = random.sample(utterances, len(utterances))
    small, large = (subset(utterances, share * hours, seed) for share in sorted((one, two)))
    assert set(small) <= set(large)
    assert subset(shuffled, max(one, two) * hours, seed) == large
    seconds = sum(u.duration for u in large)
    assert max(one, two) * hours * 3600 - 1e-6 <= seconds < max(one, two) * hours * 3600 + 20


def test_label_subsets_take_the_speakers_in_turn():
    utterances = [manifest.Utterance(f"s{s}-{i}", f"s{s}", "x", 10.0, "A") for s in range(4) for i in range(10)]
    chosen = subset(utterances, 80 / 3600, 1)
    assert [sum(u.speaker == f"s{s}" for u in chosen) for s in range(4)] == [2, 2, 2, 2]
    assert chosen != subset(utterances, 80 / 3600, 2)


def test_real_librispeech_is_read_as_it_lies(librispeech, tmp_path):
    output = recipe(
        tmp_path, "corpus=librispeech", f"corpus.root={librispeech}", "stop_stage=1", "arm=none",
        "corpus.splits.pretrain=[unlabeled-extra]", "corpus.splits.train=[train-clean-5]",
        "corpus.splits.dev=[heldout-dev]", "corpus.splits.test=[heldout-test]", tiny=[],
    )  # fmt: skip
    assert "train: 1519 utterances, 28 speakers, 5.31 h" in output
    assert "dev: 196 utterances, 72 speakers, 0.69 h" in output
    (data,) = tmp_path.glob("data/librispeech-*")
    genders = manifest.read_table(data / "dev" / "spk2gender")
    assert set(genders.values()) == {"m", "f"} and len(genders) == 72
