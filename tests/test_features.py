"""Features against computations of their own, sample checks, and archives read at random."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct

from local import archive, audio, manifest
from local.ark import Reader
from local.errors import InputError
from local.extractors import MFCC, Fbank, Spectrogram, Waveform
from local.features import extract
from local.samples import check
from tests.conftest import REPOSITORY, here, recipe, speech
from tests.test_bad_input import edit

STFT = {"sample_rate": 16000, "win_length": 25, "hop_length": 10}
FBANK = {"_target_": "local.extractors.Fbank", "n_mels": 80} | STFT


def power(samples: np.ndarray) -> np.ndarray:
    """Power spectrum with numpy alone: Hamming window of 400, FFT of 400, hop of 160."""
    padded = np.pad(samples.astype(np.float64), 200)
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = range(0, len(padded) - 399, 160)
    return np.abs(np.fft.rfft(np.stack([padded[s : s + 400] * window for s in starts]))) ** 2


def log_mel(samples: np.ndarray, n_mels: int) -> np.ndarray:
    """Log-mel filterbanks in dB with numpy alone: triangles on mel."""
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), n_mels + 2)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    center, width = hertz[1:-1], np.diff(hertz)[:-1]
    slope = (np.linspace(0, 8000, 201)[:, None] - center) / width
    filters = np.maximum(0, np.minimum(1 + slope, 1 - slope))
    decibels = 10 * np.log10(np.maximum(power(samples) @ filters, 1e-10))
    return np.maximum(decibels, decibels.max() - 80)


def log_power(samples: np.ndarray) -> np.ndarray:
    return np.log(power(samples) + 1e-14)


def derivative(frames: np.ndarray) -> np.ndarray:
    """The slope of a line through five frames, the outermost repeated."""
    padded = np.pad(frames, ((2, 2), (0, 0)), mode="edge")
    return np.stack([np.polyfit(range(-2, 3), padded[t : t + 5], 1)[0] for t in range(len(frames))])


def cepstra(samples: np.ndarray) -> np.ndarray:
    static = dct(log_mel(samples, 40), norm="ortho")[:, :13]
    return np.concatenate([static, derivative(static), derivative(derivative(static))], 1)


def framed(samples: np.ndarray) -> np.ndarray:
    padded = np.concatenate([np.zeros(200), samples, np.zeros(400)])
    return np.stack([padded[t : t + 400] for t in range(0, len(samples) + 1, 160)])


@pytest.mark.parametrize(
    "extractor, reference, largest",
    [
        (Fbank(n_mels=80, **STFT), lambda samples: log_mel(samples, 80), 0.01),  # dB
        (MFCC(n_mels=40, n_mfcc=13, **STFT), cepstra, 0.01),
        (Spectrogram(**STFT), log_power, 0.01),
        (Waveform(**STFT), framed, 0),
    ],
)
@pytest.mark.parametrize("source", ["noise", "speech"])
def test_features_agree_with_an_independent_computation(extractor, reference, largest, source, request):
    if source == "speech":
        root = request.getfixturevalue("librispeech")
        samples = audio.read(sorted(root.glob("heldout-dev/*/*/*.flac"))[0], 16000)
    else:
        samples = speech(1.234)
    frames, expected = extractor(samples), reference(samples)
    assert frames.shape == expected.shape and len(frames) == 1 + len(samples) // 160
    assert frames.dtype == np.float32
    if isinstance(extractor, Spectrogram):  # single precision knows no more than 60 dB below the loudest bin
        frames, expected = (np.maximum(values, expected.max() - 60 / 10 * np.log(10)) for values in (frames, expected))
    assert np.abs(frames - expected).max() <= largest


def kaldi_directory(directory: Path, utterances: int, seconds: float = 0.3, first: int = 0) -> list[Path]:
    """A data directory of noise in WAV files."""
    directory.mkdir(parents=True)
    rows = []
    for i in range(utterances):
        soundfile.write(path := directory / f"{i}.wav", speech(seconds, first + i), 16000)
        rows.append(manifest.Utterance(f"s{i % 3}-{i:05}", f"s{i % 3}", str(path), seconds))
    manifest.write(directory, sorted(rows, key=lambda row: row.id))
    return [Path(row.audio) for row in rows]


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "rate, window, hop", [(16000, 32, 10), (22050, 25, 15), (11025, 25, 10), (48000, 25, 10), (8000, 25, 10)]
)
def test_a_tone_is_where_it_belongs_at_any_rate_and_window(rate, window, hop):
    stft = {"sample_rate": rate, "win_length": window, "hop_length": hop}
    tone = (0.1 * np.sin(2 * np.pi * 1000 / rate * np.arange(rate + 77))).astype(np.float32)
    count = 1 + len(tone) // round(rate * hop / 1000)
    bands = Fbank(n_mels=40, **stft)(tone)
    mel = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), 42)[1:-1]
    assert abs(700 * (10 ** (mel[bands.mean(0).argmax()] / 2595) - 1) - 1000) < 100 and bands.shape == (count, 40)
    bins = Spectrogram(**stft)(tone)
    assert abs(bins.mean(0).argmax() * rate / 2 / (bins.shape[1] - 1) - 1000) < 50 and len(bins) == count
    assert MFCC(n_mels=40, n_mfcc=13, **stft)(tone).shape == (count, 39)
    assert Waveform(**stft)(tone).shape == (count, round(rate * window / 1000))
    whole = tone[: (count - 1) * round(rate * hop / 1000)]  # of which the last frame is centered on the end
    assert {len(Fbank(n_mels=40, **stft)(whole)), len(Spectrogram(**stft)(whole))} == {count}


def test_features_of_audio_that_was_never_whole_are_refused_and_all_of_it_is_listed(tmp_path):
    paths = kaldi_directory(tmp_path / "dev", 5, 1.0)
    soundfile.write(paths[0], np.zeros(16000), 16000)
    soundfile.write(paths[1], speech(0.5), 16000)
    soundfile.write(paths[2], np.where(np.arange(16000) == 7, np.nan, speech(1)), 16000, subtype="FLOAT")
    soundfile.write(paths[3], np.sign(speech(1)), 16000)
    with pytest.raises(InputError) as error:
        extract(tmp_path, ["dev"], FBANK, tmp_path / "out", tmp_path / "out", 1)
    assert sorted(line.split(": ", 1) for line in str(error.value).splitlines()) == [
        [str(paths[0]), "all 16000 samples are zero, expected speech; restore or remove it"],
        [str(paths[1]), "0.500 s of audio, but 1.000 s by its header or segment; "
                        "restore it, or run stage 1 (prepare) again"],
        [str(paths[2]), "1 of 16000 samples are no number, expected -1 to 1; restore or remove it"],
        [str(paths[3]), "all 16000 samples are at full scale, expected speech; restore or remove it"],
    ]  # fmt: skip


def test_clipped_audio_is_listed_with_its_share_and_goes_through(tmp_path, caplog):
    paths = kaldi_directory(tmp_path / "dev", 3, 1.0)
    soundfile.write(paths[1], np.clip(speech(1, 1), -0.1, 0.1) * 10, 16000)
    extract(tmp_path, ["dev"], FBANK, tmp_path / "out", tmp_path / "final", 1)
    assert "dev: 1 of 3 utterances have more than 0.1 %" in caplog.text and "final/dev/clipped" in caplog.text
    ((key, share),) = manifest.read_table(tmp_path / "out/dev/clipped").items()
    assert key == "s1-00001" and share.split()[1] == str(paths[1])
    assert float(share.split()[0]) == pytest.approx(np.mean(np.abs(speech(1, 1)) >= 0.1), abs=1e-3)


@pytest.mark.parametrize("pair", ["train-dev", "dev-test"])
def test_the_same_audio_under_another_name_in_dev_is_an_error_unless_it_is_allowed(tmp_path, pair):
    splits = pair.split("-")
    for first, split in enumerate(splits):
        kaldi_directory(tmp_path / split, 3, first=3 * first)
    twins = [tmp_path / split / f"{number}.wav" for number, split in enumerate(splits)]
    twins[1].write_bytes(twins[0].read_bytes())
    for skip in (False, True):
        with pytest.raises(InputError, match=f"^{' and '.join(splits)} share 1 audio, such as [^\n]*=.{pair}-audio"):
            extract(tmp_path, splits, FBANK, tmp_path / "out", tmp_path / "out", 1, skip=skip)
    extract(tmp_path, splits, FBANK, tmp_path / "allowed", tmp_path / "allowed", 1, allow_overlap=(f"{pair}-audio",))
    assert all((tmp_path / "allowed" / split / "frame_shift").exists() for split in splits)


def test_parts_of_a_recording_become_utterances(tmp_path):
    samples = speech(3)
    soundfile.write(tmp_path / "whole.flac", samples, 16000, subtype="PCM_16")
    directory = tmp_path / "dev"
    directory.mkdir()
    (directory / "wav.scp").write_text(f"r {tmp_path}/whole.flac\n")
    (directory / "segments").write_text("s-1 r 0.50000 1.50000\ns-2 r 1.25000 2.95000\n")
    (directory / "utt2spk").write_text("s-1 s\ns-2 s\n")
    (directory / "utt2dur").write_text("s-1 1.00000\ns-2 1.70000\n")
    extract(tmp_path, ["dev"], FBANK, tmp_path / "out", tmp_path / "out", 1)
    reader, rounded = (
        Reader(tmp_path / "out/dev/feats.scp"),
        soundfile.read(tmp_path / "whole.flac", dtype="float32")[0],
    )
    fbank = Fbank(n_mels=80, **STFT)
    np.testing.assert_array_equal(reader["s-1"], fbank(rounded[8000:24000]))
    np.testing.assert_array_equal(reader["s-2"], fbank(rounded[20000:47200]))
    edit(directory / "utt2dur", "s-2 1.70000", "s-2 2.70000")
    with pytest.raises(InputError, match=r"^s-2 in .*/whole.flac: 1.750 s of audio, but 2.700 s by its header or segm"):
        extract(tmp_path, ["dev"], FBANK, tmp_path / "again", tmp_path / "again", 1)


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_another_rate_is_refused_or_resampled(tmp_path, rate):
    def tone(at):
        return 0.5 * np.sin(2 * np.pi * 440 * np.arange(at) / at)

    soundfile.write(tmp_path / "a.wav", tone(rate), rate, subtype="FLOAT")
    with pytest.raises(InputError, match=f"a.wav: 1 channel.s. at {rate} Hz, expected 1 at 16000 Hz; convert it"):
        audio.read(tmp_path / "a.wav", 16000)
    samples = audio.read(tmp_path / "a.wav", 16000, resample=True)
    assert samples.dtype == np.float32 and len(samples) == 16000
    assert np.abs(samples - tone(16000))[200:-200].max() < 0.001


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 5)), min_size=1, max_size=8), st.randoms())
def test_whatever_was_written_is_read_back_in_any_order_as_kaldiio_does(tmp_path_factory, shapes, random):
    directory = tmp_path_factory.mktemp("ark")
    rng = np.random.default_rng(0)
    matrices = {f"u{i}": rng.normal(size=(rows, 3)).astype(np.float32) for i, (rows, _) in enumerate(shapes)}
    for number in range(2):
        with archive.Writer(directory, directory, number) as writer:
            for key in list(matrices)[number::2]:
                writer.write(key, matrices[key], "s")
    archive.join(directory, 0.01)
    reader, rival = Reader(directory / "feats.scp"), kaldiio.load_scp(str(directory / "feats.scp"))
    keys = random.sample(list(matrices), len(matrices))
    for key in keys:
        np.testing.assert_array_equal(reader[key], matrices[key])
        np.testing.assert_array_equal(reader[key], rival[key])
    read = archive.read(directory, "none", keys)
    np.testing.assert_array_equal(read.frames, np.concatenate([matrices[key] for key in keys]))


def test_a_cut_or_foreign_ark_is_one_line(tmp_path):
    with archive.Writer(tmp_path, tmp_path, 0) as writer:
        writer.write("a", np.ones((100, 80)), "s")
    archive.join(tmp_path, 0.01)
    ark = tmp_path / "feats.0.ark"
    with pytest.raises(InputError, match="feats.scp: no utterance b"):
        Reader(tmp_path / "feats.scp")["b"]
    ark.write_bytes(ark.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"feats.0.ark:2: the file ends in a; run the stage that wrote it again"):
        archive.read(tmp_path, "none")
    ark.write_bytes(b"a text, not an archive, and long enough")
    with pytest.raises(InputError, match=r"feats.0.ark:2: no binary matrix of a there"):
        archive.read(tmp_path, "none")


def test_a_file_cut_by_less_than_a_frame_since_stage_1_is_left_out_alone(tmp_path):
    paths = kaldi_directory(tmp_path / "dev", 3)
    paths[1].write_bytes(paths[1].read_bytes()[:-40])
    extract(tmp_path, ["dev"], FBANK, tmp_path / "out", Path("final"), 1, skip=True)
    (line,) = (tmp_path / "out/dev/left_out").read_text().splitlines()
    assert line.startswith(f"{paths[1]}: cut short (")
    assert len((tmp_path / "out/dev/feats.scp").read_text().splitlines()) == 2


def test_features_that_jobs_compute_together_are_those_of_one_job(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("local.features.SHARD", 5)
    made = {}
    for name in ("alone", "together"):
        shutil.copytree(tiny / "data", tmp_path / name / "data")
        (made[name],) = (tmp_path / name).glob("data/espeak-*/fbank-*")
        shutil.rmtree(made[name])
    here(tmp_path / "alone", 2, 2)
    parts = [f".{number}-of-3" for number in (1, 2, 3)]
    for part in parts:
        here(tmp_path / "together", 2, 2, f"machine.part={part}")
    shares = [made["together"].with_name(f"{made['together'].name}{part}") for part in parts]
    shutil.rmtree(shares.pop())  # as if that job had been lost
    pieces = [piece for share in shares for piece in share.rglob("utt2num_frames.*")]
    done = [line.split()[0] for piece in pieces for line in piece.read_text().splitlines()]
    spent = [path for path in tmp_path.glob("together/data/audio/**/*.flac") if path.stem in done]
    for recording in spent:
        recording.unlink()  # what the others have done is not done again
    here(tmp_path / "together", 2, 2)
    assert len(spent) > 20 and not any(share.exists() for share in shares)
    alone, together = (files(directory) for directory in made.values())
    assert {n: held for n, held in alone.items() if n != "done.json"} == {
        n: held for n, held in together.items() if n != "done.json"
    }


def test_a_sweep_has_features_computed_by_several_jobs(tiny, tmp_path):
    output = recipe(tmp_path, "stop_stage=2", "machine.shares=2")
    assert all(f"[espeak.{number}-of-2] features: done in" in output for number in (1, 2))
    alone, together = (
        {path.relative_to(folder): path.read_bytes() for path in folder.glob("data/espeak-*/fbank-*/*/feats*")}
        for folder in (tiny, tmp_path)
    )
    assert len(alone) == 8 and alone == together


SMALL_SHARDS = """
import sys
from pathlib import Path
import local.features
local.features.SHARD = 10
if __name__ == "__main__":
    data, out = map(Path, sys.argv[1:3])
    more = {"skip": True, "store": "audio"}
    local.features.extract(data, ["dev", "train"], {FBANK}, out, Path("final"), int(sys.argv[3]), **more)
"""


def test_killed_it_goes_on_behind_its_finished_shards_and_ends_in_the_same_bytes(tmp_path):
    broken = (*range(0, 30, 3), 4)  # all of a split's first shard, and one of its third
    for number, split in enumerate(("dev", "train")):
        paths = kaldi_directory(tmp_path / split, 60, first=60 * number)
        for i in broken:
            soundfile.write(paths[i], np.zeros(4800), 16000)
    script = tmp_path / "small_shards.py"
    script.write_text(SMALL_SHARDS.replace("{FBANK}", repr(FBANK)))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}

    def start(out: Path, workers: int = 2) -> subprocess.Popen:
        command = [sys.executable, script, tmp_path, out, str(workers)]
        return subprocess.Popen(command, env=environment, start_new_session=True)

    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert start(calm, workers=1).wait() == 0
    for pieces in (2, 8):  # within dev, and within train
        process = start(killed)
        while len(list(killed.glob("*/feats.?.ark"))) < pieces:
            assert process.poll() is None, "too fast to be killed"
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    whole = [path.with_name(f"feats{path.suffix}.ark") for path in killed.glob("*/utt2num_frames.?")]
    whole = [path for path in whole if path.exists()]  # of a shard in which nothing is left there is none
    before = {path: path.stat().st_mtime_ns for path in [*whole, *killed.glob("dev/feats.?.ark")]}
    assert not (killed / "train/frame_shift").exists(), "killed too late to show anything"
    assert start(killed).wait() == 0
    assert len(before) >= 6 and all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert files(killed) == files(calm)
    for split in ("dev", "train"):
        lines = (killed / split / "left_out").read_text().splitlines()
        assert [line.split(": ")[0] for line in lines] == [f"{tmp_path}/{split}/{i}.wav" for i in broken]
        assert len(Reader(killed / split / "feats.scp").places) == 60 - len(broken)


@pytest.mark.parametrize("left", ["pieces", "tables", "complete"])
def test_killed_while_it_joins_the_tables_it_ends_in_the_same_files(tmp_path, left):
    def shards(directory: Path) -> Path:
        for number in range(3):
            with archive.Writer(directory, Path("final"), number) as writer:
                writer.write(f"u{number}", np.full((4, 2), number), "s", audio_digest=str(number))
        return directory

    archive.join(calm := shards(tmp_path / "calm"), 0.01)
    killed = shards(tmp_path / "killed")
    if left != "pieces":
        (killed / "feats.scp").write_bytes((killed / "feats.scp.0").read_bytes())
    if left == "complete":
        pieces = {path: path.read_bytes() for path in killed.glob("*.[12]")}
        archive.join(killed, 0.01)
        for path, content in pieces.items():
            path.write_bytes(content)
    archive.join(killed, 0.01)
    assert files(calm) == files(killed)


@given(st.integers(1, 400), st.integers(0, 400))
def test_samples_at_full_scale_are_counted(size, clipped):
    samples = np.full(size, 0.5, np.float32)
    samples[: min(clipped, size - 1)] = -1.0
    utterance = manifest.Utterance("a", "a", "a.wav", size / 16000)
    assert check(utterance, samples, 16000, 0.01) == min(clipped, size - 1)
