"""The environment that run.sh makes or finds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture
def clone(tmp_path) -> Path:
    """What the two commands need, without an environment."""
    for name in ("run.sh", "path.sh", "requirements.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for name in ("conf", "local", "lightning_modules"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    return tmp_path


def run(clone: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHON")}
    return subprocess.run(
        ["./run.sh", *arguments], cwd=clone, env=clean | environment, capture_output=True, text=True, check=False
    )


def refused(done: subprocess.CompletedProcess, message: str) -> None:
    assert done.returncode == 1 and message in done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_a_python_that_is_too_old_is_named_with_what_is_expected(clone):
    folder = clone / "old"
    folder.mkdir()
    for name in ("python3", "python3.12", "python3.11"):
        (folder / name).write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" || exit 1\n')
        (folder / name).chmod(0o755)
    done = run(clone, PATH=f"{folder}:/usr/bin:/bin")
    refused(done, "found Python 3.9.2, expected Python 3.11 or 3.12")
    assert not (clone / ".venv").exists()


def test_an_install_step_that_fails_says_what_failed_and_is_tried_again(clone):
    (clone / "requirements.txt").write_text("./no-such-wheel-1.0-py3-none-any.whl\n")
    for _ in range(2):
        refused(run(clone, PYTHON=sys.executable), "pip install -r requirements.txt failed")


def test_an_active_environment_that_lacks_something_is_left_alone_for_a_venv(clone):
    (clone / "requirements.txt").write_text("./no-such-wheel-1.0-py3-none-any.whl\n")
    active = {"VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    done = run(clone, **active)
    assert done.returncode == 1 and "using .venv" in done.stderr and "pip install" in done.stderr
    assert (clone / ".venv").exists()


def test_an_active_environment_that_satisfies_the_requirements_is_used(clone):
    active = {"VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    done = run(clone, "--dry-run", "--stop-stage", "features", **active)
    assert done.returncode == 0, done.stderr
    assert [line.split()[3] for line in done.stdout.splitlines()] == ["download", "prepare", "features"]
    assert not (clone / ".venv").exists()
