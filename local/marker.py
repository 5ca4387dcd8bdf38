"""The done marker of a directory, `done.json`: what made it, from what, and what was written."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

# They tell times, a name drawn anew, or what something is worth: no later stage's work follows from them.
TIMED = ("history.json", "summary.json", "metrics.csv", "wandb_id", "results.json", "RESULTS.md", "index.html")
TIMED += ("quality.json", "reconstruction.png")


def read_json(path: Path):
    """The content of a file, or None if it is not there or was cut."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_marker(directory: str | Path) -> dict | None:
    """The done marker of a directory, or None if there is none, or it was cut or is another program's."""
    found = read_json(Path(directory) / "done.json")
    return found if found and "config" in found else None


def digest(marker: dict | None) -> str | None:
    """What downstream stages compare: everything in a marker but sizes, when, how fast and at which commit."""
    if marker is None:
        return None
    kept = {key: marker[key] for key in ("config", "inputs", "files", "content")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def stamp(path: str | Path) -> list[int] | None:
    """Size and mtime of a file, or None."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def written(directory: Path) -> dict:
    """Sizes of what lies in a directory, and one digest of its content: a rebuilt archive may hold other frames."""
    found = {path.relative_to(directory): path for path in sorted(directory.rglob("*")) if path.is_file()}
    passing = {"wandb", "checkpoints", "inputs.json", "done.json"}
    kept = {n: path for n, path in found.items() if not passing & {*n.parts} and n.suffix != ".tmp"}
    content = hashlib.sha256()
    for name, path in kept.items():
        if name.name not in TIMED:
            with open(path, "rb") as file:
                content.update(name.as_posix().encode() + hashlib.file_digest(file, "sha256").digest())
    sizes = {name.as_posix(): path.stat().st_size for name, path in kept.items()}
    return {"outputs": sizes, "content": content.hexdigest()}


def damage(directory: Path, marker: dict) -> Path | None:
    """The first file of a directory that has not the size it was written with."""
    wrong = (name for name, size in marker["outputs"].items() if (stamp(directory / name) or [None])[0] != size)
    return next((directory / name for name in wrong), None)


def commit() -> str | None:
    """The repository's commit, with a `+` if tracked files differ from it; None without git or its folder."""
    if not shutil.which("git"):
        return None
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False).returncode
    return head.stdout.strip() + ("+" if changed else "")


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` in one step, so that no reader sees half of it, whoever else writes it."""
    replace_by(path, path.with_name(f"{path.name}.{os.getpid()}.tmp"), text.encode())


def replace_by(path: Path, aside: Path, content: bytes | memoryview) -> None:
    """Replace `path` by what is written into `aside` first, and flushed, or a failing machine might leave neither."""
    with open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
