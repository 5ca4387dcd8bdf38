"""The directories of exp/: which is what, what is stale, and what may be deleted."""

import json
import os
import shutil
from contextlib import chdir
from pathlib import Path

import pytest

from local.lock import locked
from local.tree import Tree
from tests.conftest import printed


def files(folder: Path) -> dict[Path, int]:
    """All files with their sizes, links not followed."""
    found = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return {path: path.lstat().st_size for path in found if not path.name.endswith(".lock")}


def test_the_size_of_a_directory_leaves_out_those_within_and_nothing_else(copy):
    sizes = Tree(copy / "exp").sizes()
    assert len(sizes) == 6 * 3 + 4 * 2 + 1  # recognizers with hypotheses and scores, pretrainings, the report
    for path in [*copy.glob("exp/espeak/labels-*/*-????????"), *copy.glob("exp/pretrain/*-????????")]:
        name = str(path.relative_to(copy))
        inside = {other: size for other, size in sizes.items() if f"{other}/".startswith(f"{name}/")}
        assert sum(inside.values()) == sum(
            one.lstat().st_size for one in path.rglob("*") if one.is_symlink() or one.is_file()
        )
        assert len(inside) == (2 if "pretrain" in name else 3) and 0 < sizes[name] < sum(inside.values())


def test_a_listing_tells_directories_apart_and_two_of_a_pattern_are_compared(copy):
    shown = printed(copy, "local.ls", "none-")
    assert shown.count("finetune") == 2 and "seed=1" in shown and "seed=2" in shown
    assert ["1", "2", "seed"] in [sorted(line.split()) for line in shown.splitlines()]
    one, other = (next(copy.glob(f"exp/espeak/*/{arm}-????????")).relative_to(copy) for arm in ("dense", "masked"))
    shown = printed(copy, "local.ls", "--diff", str(one), other.name)
    assert "recognizer.frontend" in shown and "finetuned" in shown and "recognizer.updates" not in shown
    shown = printed(copy, "local.ls", "--diff", str(one), str(one))
    assert "do not differ" in shown


def test_what_an_upstream_change_makes_stale_is_said_with_the_reason(copy):
    assert "stale" not in printed(copy, "local.ls")
    changed, gone = sorted(copy.glob("exp/pretrain/masked-????????"))
    marker = json.loads((changed / "done.json").read_text())
    (changed / "done.json").write_text(json.dumps(marker | {"content": "trained anew"}))
    (gone / "done.json").unlink()
    (score,) = next(copy.glob("exp/espeak/*/none-????????")).glob("greedy-*/score")
    (score / "test/wer").write_text("")
    states = {line.split()[0]: line for line in printed(copy, "local.ls").splitlines()[1:-1]}
    of = {name: line.partition("stale: ")[2] for name, line in states.items() if "stale: " in line}
    bottlenecks = {n: why for n, why in of.items() if "/bottleneck/" in n}
    assert sorted(why.split(" autoencoder")[0].split(" seed")[0].strip() for why in bottlenecks.values()) == sorted(
        [f"{changed.relative_to(copy)} changed", f"{gone.relative_to(copy)} is gone"]
    )
    assert "test/wer is gone or cut" in of[str(score.relative_to(copy))]
    # two bottlenecks; recognizer, hypotheses and score of two trials; one score
    assert len(of) == 2 + 2 * 3 + 1


def test_only_what_is_abandoned_is_deleted_and_no_link_is_followed(copy):
    outside = copy / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    (labels,) = copy.glob("exp/espeak/labels-*")
    done = next(labels.glob("masked-????????"))
    stale, used = Path(f"{done}.stale-1"), Path(f"{done}.stale-2")
    for path in (stale, used):
        shutil.copytree(done, path)
    (stale / "link").symlink_to(outside)
    (labels / "link.stale-1").symlink_to(outside)
    (labels / "link").symlink_to(outside)
    abandoned, running = labels / "none-00000000.partial", labels / "none-11111111.partial"
    for path in (abandoned, running):
        path.mkdir()
        (path / "inputs.json").write_text("{}")
    (outside / "old.partial").mkdir()
    before = files(copy)
    (decoded,) = used.glob("greedy-????????")
    with locked(running.with_suffix(""), "a test"), locked(decoded / "score", "a test"):
        listed = printed(copy, "local.ls", "--clean")
        assert files(copy) == before
        named = {line.split()[0] for line in listed.splitlines()[1:-1]}
        assert named == {str(path.relative_to(copy)) for path in (stale, used, abandoned)}
        said = printed(copy, "local.ls", "--clean", "--delete")
    assert f"kept {used.relative_to(copy)}: a process is at it" in said
    left = files(copy)
    assert set(before) - set(left) == {path for path in before if stale in path.parents or abandoned in path.parents}
    assert left == {path: size for path, size in before.items() if path in left}
    assert (outside / "precious").read_text() == "kept" and (outside / "old.partial").is_dir()
    assert (labels / "link.stale-1").is_symlink() and running.is_dir()


def test_cleaning_works_where_the_folder_is_itself_a_link(copy, tmp_path):
    (copy / "exp").rename(copy / "disk")
    (copy / "exp").symlink_to(copy / "disk")
    (copy / "disk/pretrain/masked-00000000.partial").mkdir()
    with chdir(copy):
        assert "deleted exp/pretrain/masked-00000000.partial" in printed(copy, "local.ls", "--clean", "--delete")
    assert not (copy / "disk/pretrain/masked-00000000.partial").exists()


@pytest.mark.parametrize(
    "arguments, message, status",
    [
        (["nothing-like-this"], "no directory in exp has such a name", 1),
        (["--diff", "masked-", "none-"], "name one", 1),
        (["--delete"], "only with --clean", 2),
    ],
)
def test_what_cannot_be_listed_is_one_line(tiny, tmp_path, arguments, message, status):
    (tmp_path / "exp").symlink_to(tiny / "exp")
    output = printed(tmp_path, "local.ls", *arguments, status=status)
    assert message in output.splitlines()[-1] and "Traceback" not in output
