"""Data directories, archives, features and label subsets."""

import re

import kaldiio
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from local import archive, manifest
from local.labels import subset
from tests.conftest import recipe


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
        for s, g in (("b", "m"), ("a", "f"), ("B", "m"))
        for i in range(3)
    ]
    utterances.sort(key=lambda u: u.id)
    manifest.write(tmp_path, utterances)
    assert manifest.read(tmp_path) == utterances
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
    assert re.search(r"train +1,519 +0 +28 +5.31 ", output) and re.search(r"dev +196 +0 +72 +0.69 ", output)
    (data,) = tmp_path.glob("data/librispeech-*")
    genders = manifest.read_table(data / "dev" / "spk2gender")
    assert set(genders.values()) == {"m", "f"} and len(genders) == 72
