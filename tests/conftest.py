"""Small real runs that several tests look at."""

import logging
import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_dir

from local.config import CONF
from local.lock import locked
from local.run import run_stages

REPOSITORY = Path(__file__).resolve().parent.parent
# The whole recipe on some 40 seconds of speech a split; nothing is learnt, everything is done.
TINY = [
    *("corpus.minutes.pretrain=1", "corpus.minutes.train=0.7", "corpus.minutes.dev=0.5", "corpus.minutes.test=0.7"),
    *("autoencoder.updates=4", "autoencoder.check_every=2", "autoencoder.batch_seconds=20"),
    *("recognizer.updates=4", "recognizer.check_every=2", "recognizer.batch_seconds=20", "corpus.accents=1"),
    *("autoencoder.width=16", "recognizer.width=16", "recognizer.encoder.width=16"),
]
# Its word on being loaded would be among the messages of whichever test loads it.
logging.getLogger("speechbrain.utils.quirks").setLevel(logging.WARNING)
SCLITE = shutil.which("sclite", path=f"{os.environ['PATH']}:/usr/lib/sctk/bin")  # the latter is Debian's


def recipe(
    folder: Path, *settings: str, status: int = 0, tiny: list[str] = TINY, under: tuple = (), **environment: str
) -> str:
    """Run stages in `folder` as ./run.sh does, by the command `under`; return what was printed, stderr last."""
    return printed(folder, "local.run", "-m", *tiny, *settings, status=status, under=under, **environment)


def printed(folder: Path, module: str, *arguments: str, status: int = 0, under: tuple = (), **environment: str) -> str:
    """What `python -m module`, by the command `under`, prints in `folder`, stderr last."""
    done = subprocess.run(
        [*under, sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def here(folder: Path, first: int, last: int, *settings: str, tiny: list[str] = TINY) -> None:
    """Run stages of one cell in this process, which has imported already what takes seconds."""
    settings = [*tiny, "logger=csv", "seed=1", *settings]
    if "arm=none" in settings:  # it has no autoencoder to set
        settings = [setting for setting in settings if not setting.startswith("autoencoder.")]
    with chdir(folder), initialize_config_dir(str(CONF), version_base="1.3"):
        run_stages(compose("config", [*settings, f"stage={first}", f"stop_stage={last}"]))


def borrow(tiny: Path, folder: Path) -> Path:
    """A folder with the data and features of the tiny run, and nothing trained."""
    (folder / "data").symlink_to(tiny / "data")
    return folder


def whole(folder: Path, *settings: str) -> str:
    """All stages."""
    return recipe(folder, "stage=0", "stop_stage=8", *settings)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems() -> None:
    """As before each test, for a test file may import SpeechBrain."""
    pytest_runtest_setup()


def pytest_runtest_setup() -> None:
    """Hypothesis looks at every loaded module, at which SpeechBrain's lazy ones import what is not installed."""
    for name, module in list(sys.modules.items()):
        if type(module).__module__ == "speechbrain.utils.importutils":
            del sys.modules[name]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder in which arms `none`, `masked` and `dense` went through all stages, with two seeds, logged offline."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    with locked(folder, "a test process"):  # one for all of them
        if not (folder / "output.txt").exists():
            folder.mkdir()
            (folder / "output.txt").write_text(whole(folder, "arm=none,masked,dense", "seed=1,2"))
    return folder


@pytest.fixture
def own(tiny, tmp_path) -> Path:
    """A copy of the whole tiny run, to see what changes in it: processes of other tests do not write there."""
    passing = shutil.ignore_patterns("*.partial*", "*.tmp")
    return shutil.copytree(tiny, tmp_path / "own", symlinks=True, ignore=passing)


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    """What the tiny run left, its exp/ free to be changed."""
    shutil.copytree(tiny / "exp", tmp_path / "exp", symlinks=True)
    return borrow(tiny, tmp_path)


@pytest.fixture(scope="session")
def librispeech() -> Path:
    """The root of real LibriSpeech folders."""
    root = os.environ.get("HOURGLASS_DATA")
    if not root:
        pytest.skip("HOURGLASS_DATA does not name a folder with LibriSpeech/heldout-dev in it")
    return Path(root) / "LibriSpeech"


@pytest.fixture(scope="session")
def sctk() -> Path:
    """The folder of NIST's sclite and sc_stats."""
    if SCLITE is None:
        pytest.skip("sclite is not installed (Debian: apt-get install sctk)")
    return Path(SCLITE).parent


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(16000 * seconds)).astype(np.float32)


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A folder of four small Kaldi data directories, one for each split."""
    for number, split in enumerate(("pretrain", "train", "dev", "test")):
        directory = tmp_path / "mine" / split
        directory.mkdir(parents=True)
        rows = [(f"s{number}-{i}", directory / f"{i}.wav") for i in range(3)]
        for i, (_, path) in enumerate(rows):
            soundfile.write(path, speech(1, 10 * number + i), 16000)
        (directory / "wav.scp").write_text("".join(f"{key} {path}\n" for key, path in rows))
        (directory / "utt2spk").write_text("".join(f"{key} s{number}\n" for key, _ in rows))
        (directory / "text").write_text("".join(f"{key} hello there {split}\n" for key, _ in rows))
    return tmp_path
