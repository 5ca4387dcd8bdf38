"""What is written can be read by others: `lhotse kaldi import` takes our data directories and features."""

import subprocess
import sys
from pathlib import Path

import kaldiio
import numpy as np
import soundfile
from lhotse import load_manifest
from lhotse.kaldi import load_kaldi_data_dir

from local import manifest
from local.manifest import Utterance
from tests.conftest import here, speech


def test_lhotse_imports_a_data_directory_with_its_features(corpus, monkeypatch):
    monkeypatch.chdir(corpus)  # to which the paths in scp files are relative
    here(corpus, 1, 2, "corpus=kaldi", f"corpus.root={corpus / 'mine'}", "arm=none", "machine.workers=1", tiny=[])
    (data,) = corpus.glob("data/kaldi-*/dev")
    (features,) = corpus.glob("data/kaldi-*/fbank-*/dev")
    joined = corpus / "joined"
    joined.mkdir()
    for path in (*data.iterdir(), features / "feats.scp"):
        (joined / path.name).symlink_to(path)
    lhotse = Path(sys.executable).with_name("lhotse")
    subprocess.run([lhotse, "kaldi", "import", joined, "16000", corpus / "out", "-f", "0.01"], check=True)
    recordings, supervisions, found = (
        load_manifest(corpus / "out" / f"{name}.jsonl.gz") for name in ("recordings", "supervisions", "features")
    )
    frames = kaldiio.load_scp(str(features / "feats.scp"))
    for utterance in manifest.read(data):
        recording, supervision = recordings[utterance.id], supervisions[utterance.id]
        assert recording.duration == utterance.duration and len(recording.load_audio()[0]) == 16000
        assert (supervision.text, supervision.speaker) == (utterance.text, utterance.speaker)
        (feature,) = (one for one in found if one.recording_id == utterance.id)
        np.testing.assert_array_equal(feature.load(), frames[utterance.id])


def test_lhotse_imports_segments_genders_and_texts(tmp_path):
    soundfile.write(tmp_path / "long.flac", speech(5), 16000)
    rows = [
        Utterance(
            f"s{i}-a", f"s{i}", str(tmp_path / "long.flac"), 1.25, f"WORD {i}", "fm"[i], recording="r", start=2.0 * i
        )
        for i in range(2)
    ]
    manifest.write(tmp_path / "data", rows)
    recordings, supervisions, _ = load_kaldi_data_dir(tmp_path / "data", 16000)
    assert [r.id for r in recordings] == ["r"] and recordings["r"].duration == 5
    assert [
        Utterance(s.id, s.speaker, recordings[s.recording_id].sources[0].source, s.duration, s.text, s.gender,
                  recording=s.recording_id, start=s.start)
        for s in supervisions
    ] == rows  # fmt: skip
