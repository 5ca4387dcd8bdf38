"""Which directory in exp/ is which run, how much disk it takes and what is stale: `python -m local.ls [PATTERN]`."""

import argparse
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from local import failure, terminal
from local.errors import InputError, refusals_reported
from local.lock import lock_of, seized
from local.tree import LEFT, Tree, differing, words

STYLES = {
    "running": "cyan",
    "queued": "cyan",
    "killed": "yellow",
    "failed": "red",
    "stopped": "blue",
    "stale": "yellow",
    "set aside": "yellow",
}
GOES = ("set aside", "killed", "failed", "stopped")  # what --clean names


@dataclass(frozen=True)
class Row:
    """A directory: its name, stage and bytes, how it stands, why that is so, and what it was made from."""

    name: str
    stage: str
    size: int
    state: str
    why: str | None
    settings: dict


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m local.ls",
        description=__doc__.partition(": `")[0] + ".",
        epilog="A directory is done, running (a process holds its lock), queued (a job of SLURM is to go on with it), "
        "failed, stopped (by the rule of its search), "
        "killed (begun, and nobody is at it; the same command continues it), stale (complete, but its files or what it "
        "was made from changed; the next run sets it aside) or set aside. Settings are those in which directories of "
        "one stage differ, and sizes leave out other directories within.",
    )
    parser.add_argument(
        "pattern", nargs="?", default="", metavar="PATTERN",
        help="part of the name, or with * of all of it; with / of the whole path",
    )  # fmt: skip
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="what differs between two, as for two of a pattern")
    parser.add_argument("--clean", action="store_true", help="list what could go: failed, stopped, killed or set aside")
    parser.add_argument("--delete", action="store_true", help="with --clean: delete that, and nothing else")
    parser.add_argument("--exp", type=Path, default=Path("exp"), metavar="DIR", help="the folder of the runs (exp)")
    args = parser.parse_args()
    if args.delete and not args.clean:
        parser.error("--delete: only with --clean, which lists what goes")
    return args


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern names a directory."""
    text = name if "/" in pattern else name.rpartition("/")[2]
    return fnmatchcase(text, pattern) if "*" in pattern else pattern.rstrip("/") in text


def listing(tree: Tree) -> list[Row]:
    """All directories of a tree."""
    rows = []
    for name, size in tree.sizes().items():
        made, left = tree.made(name), LEFT.search(name)
        if left and left[1] == "partial":
            state = tree.state(name.removesuffix(".partial"))
            why = failure.reason(tree.path(name.removesuffix(".partial")), state)
        else:
            why = None if left else tree.outdated(name)
            state = "set aside" if left else "stale" if why else "done"
        settings = tree.settings([*tree.lineage(name).values(), name])
        rows.append(Row(name, made.get("stage", "-"), size, state, why, settings))
    return rows


def show(rows: list[Row], console: Console) -> None:
    """A line a directory, and the sum of their sizes."""
    table = terminal.table()
    for title in ("directory", "stage", "size", "state", "settings"):
        table.add_column(title, justify="right" if title == "size" else "left", overflow="fold")
    keys = {
        stage: differing([("", row.settings) for row in rows if row.stage == stage])
        for stage in {row.stage for row in rows}
    }
    for row in rows:
        state = Text(row.state + (f": {row.why}" if row.why else ""), style=STYLES.get(row.state, ""))
        settings = words(row.settings, keys[row.stage])
        table.add_row(Text(row.name), row.stage, decimal(row.size), state, Text(settings))
    console.print(table)
    console.print(Text(f"{len(rows)} directories, {decimal(sum(row.size for row in rows))}"))


def one(rows: list[Row], pattern: str) -> Row:
    """The directory of exactly this name, or the only one that a pattern names."""
    pattern = pattern.rstrip("/")
    found = [row for row in rows if row.name == pattern] or [row for row in rows if matches(row.name, pattern)]
    if len(found) != 1:
        names = ", ".join(row.name for row in found[:3])
        raise InputError(
            f"{pattern}: {f'{len(found)} directories, {names} ...' if found else 'no such directory'}; name one"
        )
    return found[0]


def show_difference(a: Row, b: Row, console: Console) -> None:
    """The settings in which two differ, or that there are none."""
    table = terminal.table()
    for title in ("setting", a.name, b.name):
        table.add_column(Text(title), overflow="fold")
    for key in sorted(a.settings.keys() | b.settings.keys()):
        if a.settings.get(key) != b.settings.get(key):
            table.add_row(key, *(Text(str(row.settings.get(key, "-"))) for row in (a, b)))
    console.print(table if table.row_count else Text(f"{a.name} and {b.name} do not differ in any setting"))


def delete(tree: Tree, rows: list[Row], console: Console) -> None:
    """Delete directories, holding all locks of and in each meanwhile; one that somebody else holds stays."""
    freed = 0
    for row in rows:
        path = tree.path(row.name)
        with refusals_reported(path), ExitStack() as locks:
            own = lock_of(path.with_name(LEFT.sub("", path.name)))
            if not all(locks.enter_context(seized(lock)) for lock in (own, *path.rglob(".*.lock"))):
                console.print(Text(f"kept {row.name}: a process is at it"))
            elif path.is_dir():  # a process may have renamed it meanwhile
                shutil.rmtree(path)  # removes links, and not what they lead to
                freed += row.size
                console.print(Text(f"deleted {row.name}"))
    console.print(Text(f"freed {decimal(freed)}"))


def main() -> None:
    """List, compare or clean."""
    args = arguments()
    console = Console(width=terminal.WIDE)
    try:
        with refusals_reported(args.exp):
            tree = Tree(args.exp)
            every = listing(tree)
        rows = [row for row in every if matches(row.name, args.pattern)]
        if args.diff:
            return show_difference(*(one(every, pattern) for pattern in args.diff), console)
        if args.pattern and not rows:
            raise InputError(f"{args.pattern}: no directory in {args.exp} has such a name; without it, all are listed")
        if args.clean:
            rows = [row for row in rows if row.state in GOES]
        if args.delete:
            return delete(tree, rows, console)
        show(rows, console)
        if args.pattern and len(rows) == 2:
            show_difference(*rows, console)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
