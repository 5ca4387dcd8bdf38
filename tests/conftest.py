"""Small real runs that several tests look at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
# The whole recipe on some 40 seconds of speech a split; nothing is learnt, everything is done.
TINY = [
    *("corpus.minutes.pretrain=1", "corpus.minutes.train=0.7", "corpus.minutes.dev=0.5", "corpus.minutes.test=0.7"),
    *("autoencoder.updates=4", "autoencoder.check_every=2", "autoencoder.batch_seconds=20"),
    *("recognizer.updates=4", "recognizer.check_every=2", "recognizer.batch_seconds=20", "corpus.accents=1"),
    *("autoencoder.width=16", "recognizer.width=16", "recognizer.encoder.width=16"),
]


def recipe(folder: Path, *settings: str, status: int = 0, tiny: list[str] = TINY, **environment: str) -> str:
    """Run stages in `folder` as ./run.sh does; return what was printed, stderr last."""
    done = subprocess.run(
        [sys.executable, "-m", "local.run", "-m", *tiny, *settings],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def whole(folder: Path, *settings: str) -> str:
    """All stages, in the four steps of run.sh."""
    steps = ((0, 2), (3, 4), (5, 7), (8, 8))
    return "".join(recipe(folder, f"stage={a}", f"stop_stage={b}", *settings) for a, b in steps)


def pytest_runtest_setup() -> None:
    """Hypothesis looks at every loaded module, at which SpeechBrain's lazy ones import what is not installed."""
    for name, module in list(sys.modules.items()):
        if type(module).__module__ == "speechbrain.utils.importutils":
            del sys.modules[name]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder in which arms `none`, `masked` and `dense` went through all stages, with two seeds, logged offline."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "output.txt").write_text(whole(folder, "arm=none,masked,dense", "seed=1,2"))
    return folder


@pytest.fixture(scope="session")
def librispeech() -> Path:
    """The root of real LibriSpeech folders."""
    root = os.environ.get("HOURGLASS_DATA")
    if not root:
        pytest.skip("HOURGLASS_DATA does not name a folder with LibriSpeech/heldout-dev in it")
    return Path(root) / "LibriSpeech"
