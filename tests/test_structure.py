"""The house as a whole: which way imports go, and what the configuration may say."""

import ast
import json
import re
import subprocess

import pytest

from local.config import check_overrides
from local.errors import InputError
from local.tables import render_markdown
from tests.conftest import REPOSITORY

ENTRIES = ("transcribe.py", "export.py")  # commands that use a trained recognizer; as stages, nobody imports them


def imports(path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def modules(folder: str) -> list:
    return sorted((REPOSITORY / folder).rglob("*.py"))


def test_imports_go_one_way():
    for path in modules("lightning_modules"):
        assert not [name for name in imports(path) if name.startswith("local.stages")], path
    for path in modules("local"):
        assert not [name for name in imports(path) if name.rpartition(".")[2] + ".py" in ENTRIES], path
        if "stages" not in path.parts and path.name not in ENTRIES:
            assert not [name for name in imports(path) if name.startswith("lightning_modules")], path
    assert any(name.startswith("lightning_modules") for path in modules("local/stages") for name in imports(path))


def test_no_stage_names_a_model_and_none_is_longer_than_a_page():
    for path in modules("local/stages"):
        text = path.read_text()
        assert not re.search(r"autoencoders\.|recognizers\.|encoders\.", text), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, (path, node.name)


def test_help_needs_no_environment_and_names_every_group():
    done = subprocess.run(
        ["./run.sh", "--help"], cwd=REPOSITORY, capture_output=True, text=True, env={"PATH": "/bin:/usr/bin"}
    )
    assert done.returncode == 0
    for folder in (REPOSITORY / "conf").iterdir():
        if folder.is_dir() and folder.name != "hydra":
            assert f"{folder.name}=" in done.stdout
            for option in folder.glob("*.yaml"):
                assert option.stem in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--stge", "3"], "unknown option --stge; the nearest is --stage"),
        (["--stage", "9"], "no stage '9'; stages are 0 to 8"),
        (["--stage", "pretain"], "no stage 'pretain'"),
        (["--stage"], "--stage needs a stage"),
        (["--stage", "5", "--stop-stage", "2"], "comes before"),
    ],
)
def test_the_driver_refuses_in_one_line_what_it_does_not_know(arguments, message):
    done = subprocess.run(["./run.sh", *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "override, message",
    [
        ("autoencoder.botleneck=3", "unknown setting 'autoencoder.botleneck'; the nearest is 'autoencoder.bottleneck'"),
        ("arm=maskd", "unknown arm 'maskd'; the nearest is 'masked'"),
        ("recognizer.encoder.widht=3", "the nearest is 'recognizer.encoder.width'"),
        ("encoder@autoencoder.encoder=conformr", "unknown encoder 'conformr'; the nearest is 'conformer'"),
        ("recognizer.encoder=conformer", "expected settings within it, or encoder@recognizer.encoder=conformer, "),
        ("autoencoder.encoder=null", "expected settings within it, or encoder@autoencoder.encoder=conformer, "),
        ("recognizer.augmentation=null", "settings within it, or augmentation@recognizer.augmentation=waveform"),
        ("autoencoder.noise=much", "autoencoder.noise=much: expected a number"),
        ("seed", "expected key=value"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_nearest_one(override, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_overrides(["seed=1", override])


def test_every_setting_of_the_configuration_is_known_to_the_check():
    check_overrides(["arm=none,masked", "seed=1,2", "autoencoder.encoder.layers=3", "corpus.splits.dev=[a]", "+new=1"])
    check_overrides(["unlabeled.features=data/a/b", "decoder.lm=exp/lm/a", "recognizer.encoder={width: 64}"])


def test_the_readme_shows_the_results_that_were_published():
    published = (REPOSITORY / "recipes/espeak/RESULTS.md").read_text().splitlines()
    section = (REPOSITORY / "README.md").read_text().split("RESULTS.md` has it:")[1].split("`tests/bench")[0]
    shown = [line for line in section.splitlines() if line]
    assert len(shown) > 6 and set(shown) <= set(published)


@pytest.mark.parametrize(
    "results", sorted((REPOSITORY / "recipes").rglob("results.json")), ids=lambda path: path.parent.name
)
def test_published_tables_are_what_the_published_results_render_to(results):
    found = json.loads(results.read_text(encoding="utf-8"))
    assert results.with_name("RESULTS.md").read_text(encoding="utf-8") == render_markdown(found)
