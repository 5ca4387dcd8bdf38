"""What lies in exp/: which directory is what, how it stands, and which trials they make up.

All of it as markers, locks and lists of cells on disk tell it, and SLURM's queue of what was submitted to it.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from local import failure, queue
from local.errors import InputError
from local.lock import held, lock_of
from local.marker import damage, digest, read_json, read_marker, stamp

CHAIN = ("pretrain", "bottleneck", "finetune", "lm", "decode", "score")  # what a trial makes, in this order
DERIVED = ("labels.name", "decoder.lm")  # they follow from other settings
LONG = 60  # characters of a list
LEFT = re.compile(r"\.(partial|stale-\d+)$")  # the end of the name of what no stage reads


@dataclass(frozen=True)
class Trial:
    """A cell that was asked for, or was run."""

    arm: str
    seed: int | None
    corpus: str
    settings: dict  # all of them, by dotted key
    directory: str  # of its recognizer
    state: str  # as of Tree.state
    stage: str  # which stands so; score if it is done
    reason: str  # why that failed or was stopped, or empty
    wer: float | None  # on dev, in percent
    seconds: float | None  # of the device, pretraining included; None before a training has ended


class Tree:
    """A folder `exp`. Names begin with `exp/`, as in the configuration, wherever it lies; markers are read once."""

    def __init__(self, exp: Path) -> None:
        if not exp.is_dir():
            raise InputError(f"{exp}: no such folder; expected exp/ of some runs, which ./run.sh makes")
        self.exp, self._made, self._outdated = exp, {}, {}

    def path(self, name: str) -> Path:
        """Where a directory of the configuration lies."""
        return self.exp / name[4:] if name.startswith("exp/") else self.exp.absolute().parent / name

    def names(self) -> list[str]:
        """The directories that a stage made or began; no link is followed."""
        return sorted(_directories(self.exp, "exp"))

    def sizes(self) -> dict[str, int]:
        """Bytes of each of them, but for others within it."""
        names = self.names()
        return {name: _size(self.path(name), name, {*names}) for name in names}

    def made(self, name: str) -> dict:
        """The marker of a directory, or what is known of it before it is complete; empty if there is neither."""
        if name not in self._made:
            path = self.path(name)
            began = (path / "inputs.json", Path(f"{path}.partial/inputs.json"))
            self._made[name] = read_marker(path) or next(filter(None, map(read_json, began)), {})
        return self._made[name]

    def state(self, name: str) -> str:
        """done, running, queued, failed, stopped, killed or to run: how the directory of this name stands."""
        path = self.path(name)
        if "content" in self.made(name):
            return "done"
        if held(lock_of(path)):
            return "running"
        if (job := queue.remembered(path)) and self._waits(job):
            return "queued"
        for ended in ("failed", "stopped"):
            if failure.reason(path, ended) is not None:
                return ended
        return "killed" if Path(f"{path}.partial").exists() else "to run"

    @cached_property
    def _queue(self) -> dict | None:
        """The jobs that have not ended, by their numbers; None where there is no SLURM to ask."""
        try:
            return queue.waiting_or_running()
        except InputError:
            return None

    def _waits(self, job: str) -> bool:
        """Whether a job has not ended; taken for granted if nobody can tell."""
        return self._queue is None or job in self._queue

    def outdated(self, name: str) -> str:
        """Why a complete directory, or something that it was made from, is no longer what was written; or empty."""
        if name not in self._outdated:
            self._outdated[name] = self._difference(name)
        return self._outdated[name]

    def _difference(self, name: str) -> str:
        made = self.made(name)
        if "content" not in made:
            return "its done.json is gone or cut"
        if cut := damage(self.path(name), made):
            return f"{cut.relative_to(self.path(name))} is gone or cut"
        for key, upstream in made.get("upstream", {}).items():
            if "content" not in self.made(upstream):
                if made["inputs"][key] is not None:  # a folder of audio has no marker
                    return f"{upstream} is gone"
            elif digest(self.made(upstream)) != made["inputs"][key]:
                return f"{upstream} changed"
            elif self.outdated(upstream):
                return f"{upstream} is stale"
        stamps = {path: then for path, then in made.get("files", {}).items() if isinstance(then, list)}  # and no digest
        return next((f"{path} changed" for path, then in stamps.items() if stamp(self.path(path)) != then), "")

    def lineage(self, name: str) -> dict[str, str]:
        """By stage or key of `dirs`, the directories that one was made from, itself included."""
        made = self.made(name)
        found = {made["stage"]: name} if "stage" in made else {}
        for key, upstream in made.get("upstream", {}).items():
            if key != "unlabeled":  # perhaps of another corpus
                found |= {k: n for k, n in self.lineage(upstream).items() if k not in found} | {key: upstream}
        return found

    def settings(self, names: Iterable[str]) -> dict:
        """All that directories record of their configuration, by dotted key."""
        found = {}
        for name in names:
            found |= self.made(name).get("config", {})
        return flat(found)

    def trials(self) -> list[Trial]:
        """The cells of all lists of sweeps, and whatever other recognizers there are."""
        cells = {}
        for path in sorted(self.exp.glob("cells/*.json"), key=lambda path: path.stat().st_mtime):
            cells |= {cell["dirs"]["score"]: cell for cell in read_json(path) or []}
        listed = {cell["dirs"]["finetune"] for cell in cells.values()}
        names = [name.removesuffix(".partial") for name in self.names()]
        stages = {name: self.made(name).get("stage") for name in names if not LEFT.search(name)}
        decoded = {os.path.dirname(name) for name, stage in stages.items() if stage == "decode"}
        for name, stage in stages.items():
            score = f"{name}/score"
            if stage == "decode" and score not in cells:
                cells[score] = {"dirs": self.lineage(name) | {"score": score}}
            if stage == "finetune" and name not in decoded and name not in listed:
                cells[name] = {"dirs": self.lineage(name)}
        return [self._trial(cell) for cell in cells.values()]

    def _trial(self, cell: dict) -> Trial:
        dirs = {key: cell["dirs"][key] for key in CHAIN if cell["dirs"].get(key)}
        states = {key: self.state(name) for key, name in dirs.items()}
        states.setdefault("decode", "to run")  # of a recognizer alone, which no sweep lists
        stage = next((key for key, state in states.items() if state != "done"), "score")
        state = states[stage]
        name = dirs["finetune"]
        made_from = (cell["dirs"].get(key) for key in ("data", "features", *CHAIN))
        settings = flat(cell["config"]) if "config" in cell else self.settings(filter(None, made_from))
        spent = [self._json(dirs, key, "summary.json") for key in ("pretrain", "finetune")]
        scored = self.path(dirs["score"]) / "dev/wer" if states.get("score") == "done" else None
        rate = scored.read_text(encoding="utf-8").split() if scored and scored.exists() else []  # it may be gone or cut
        return Trial(
            arm=cell.get("arm", os.path.basename(name).rpartition("-")[0]), seed=settings.pop("seed", None),
            corpus=settings.get("corpus.name", name.split("/")[1]), settings=settings, directory=name, state=state,
            stage=stage, reason=failure.reason(self.path(dirs[stage]), state) or "",
            wer=float(rate[1]) if len(rate) > 1 else None,
            seconds=sum(one["device_seconds"] for one in spent if one) if any(spent) else None,
        )  # fmt: skip

    def _json(self, dirs: dict, key: str, name: str) -> dict | None:
        return read_json(self.path(dirs[key]) / name) if key in dirs else None


def _directories(path: Path | str, name: str) -> Iterator[str]:
    if LEFT.search(name):  # what lies in it goes with it
        yield name
        return
    entries = _entries(path)
    if any(entry.name == "done.json" for entry in entries):
        yield name
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _directories(entry.path, f"{name}/{entry.name}")


def _entries(path: Path | str) -> list[os.DirEntry]:
    """What lies in a directory; nothing if a run has renamed it meanwhile."""
    try:
        with os.scandir(path) as found:
            return list(found)
    except FileNotFoundError:
        return []


def _size(path: Path | str, name: str, others: set[str]) -> int:
    """Bytes of the files in a directory, but for those in the others."""
    size = 0
    for entry in _entries(path):
        inside = f"{name}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            size += 0 if inside in others else _size(entry.path, inside, others)
        else:
            with suppress(FileNotFoundError):
                size += entry.stat(follow_symlinks=False).st_size
    return size


def flat(config: dict, prefix: str = "") -> dict:
    """Settings by dotted key; without paths, what others imply, and the class of what has a name."""
    found = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None and not key.startswith("dirs.") and not (key == "_target_" and "name" in config):
            found[prefix + key] = value
    found = {key: value for key, value in found.items() if key not in DERIVED}
    return found if prefix else {key: value for key, value in found.items() if "." in key or key == "seed"}


def differing(runs: list[tuple[str, dict]]) -> list[str]:
    """The keys in which runs (kind, settings) of a corpus differ.

    If some runs lack a key, it must differ among those of one kind with one autoencoder.
    """
    found = []
    for key in sorted({key for _, settings in runs for key in settings}):
        groups: dict[tuple, set[str]] = {}
        common = all(key in settings for _, settings in runs)
        for kind, settings in runs:
            group = () if common else (kind, settings.get("autoencoder.name"))
            groups.setdefault((settings.get("corpus.name"), *group), set()).add(repr(settings.get(key)))
        if any(len(values) > 1 for values in groups.values()):
            found.append(key)
    return found


def words(settings: dict, keys: Iterable[str]) -> str:
    """Those of the settings that there are, as a command line has them."""
    return " ".join(f"{key}={shown(settings[key])}" for key in keys if key in settings)


def shown(value) -> str:
    """A setting as a table has it: of a long list, as word pieces are, its ends."""
    text = str(value)
    return f"[{value[0]}, ... {value[-1]}]" if isinstance(value, list) and len(text) > LONG else text
