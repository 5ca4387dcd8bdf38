"""A leaderboard of all trials, the cells that sweeps asked for or that were run alone, from what lies on disk.

`python -m local.leaderboard [exp/]`
"""

import argparse
import csv
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from local import terminal
from local.errors import InputError, refusals_reported
from local.tree import Tree, Trial, differing, shown

FIRST = ("wer", "state", "arm", "seed")
LAST = ("cost", "directory")
WORDS = ("state", "arm", "corpus", "directory")
STYLES = {"done": "green", "stopped": "blue", "running": "cyan", "queued": "cyan", "failed": "red", "killed": "yellow"}


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m local.leaderboard",
        description=__doc__.partition("\n\n")[0],
        epilog="A trial is done, stopped (by the rule of its search), running (a process holds the lock), failed (with "
        "its reason), queued (a job of SLURM is to go on with it), killed (begun, and nobody is at it; the same "
        "command continues it) or to run. A setting has a column if trials of a corpus differ in it, of one arm or, "
        "where all of them have it, of any. Cost is that of a trial's trainings, with the pretraining that it may "
        "share with others.",
    )
    parser.add_argument("exp", nargs="?", type=Path, default=Path("exp"), help="the folder of the runs (exp)")
    parser.add_argument(
        "--sort", default="wer", metavar="COLUMN", help="wer, cost, state, arm, seed or a setting (wer)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all of it there too, with whole paths")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw the trials that are done: parallel coordinates"
    )
    return parser.parse_args()


def columns(trials: list[Trial]) -> list[str]:
    """Their names, in order."""
    several = [name for name in ("corpus",) if len({trial.corpus for trial in trials}) > 1]
    return [*FIRST, *several, *differing([(trial.arm, trial.settings) for trial in trials]), *LAST]


def titles(trials: list[Trial]) -> dict[str, str]:
    """Of the columns that are not called by their names."""
    rates = sorted({trial.settings.get("units.rate", "WER") for trial in trials})
    return {"wer": f"dev {'/'.join(rates)} %", "cost": "device minutes"}


def value(trial: Trial, column: str):
    """What stands in a column, None if the trial has no such thing."""
    if column == "cost":
        return None if trial.seconds is None else trial.seconds / 60
    return trial.settings.get(column) if "." in column else getattr(trial, column)


def ordered(trials: list[Trial], column: str) -> list[Trial]:
    """Lowest first, numbers before words, and last those without."""

    def place(trial: Trial) -> tuple:
        found = value(trial, column)
        number = isinstance(found, int | float)
        return found is None, not number, found if number else 0, str(found)

    return sorted(trials, key=lambda trial: (place(trial), trial.arm, str(trial.seed), trial.directory))


def show(trials: list[Trial], names: list[str], console: Console) -> None:
    """The table, how many stand how, and why those that failed or were stopped did."""
    table = terminal.table()
    called = titles(trials)
    for name in names:
        title = called.get(name, name).replace(" ", "\n", 1).replace(".", ".\n")
        table.add_column(Text(title), justify="left" if name in WORDS else "right", no_wrap=True)
    # One row of long cells: of a row a trial, rich would make 1,000 in three times as long.
    table.add_row(*(Text("\n").join(_cell(trial, name) for trial in trials) for name in names))
    console.print(table)
    states = [trial.state for trial in trials]
    counts = ", ".join(
        f"{states.count(state)} {state}" for state in dict.fromkeys([*STYLES, "to run"]) if state in states
    )
    console.print(Text(f"{len(trials)} trials: {counts}"))
    for trial in trials:
        if trial.reason:
            console.print(Text(f"{_short(trial)} seed={trial.seed}: {trial.stage}: {trial.reason}"))


def _short(trial: Trial) -> str:
    """The name of its directory without those in which it lies."""
    return Path(trial.directory).name


def _cell(trial: Trial, name: str) -> Text:
    found = value(trial, name)
    if name == "state":
        at = "" if found == "done" else f" ({trial.stage})"
        return Text(f"{found}{at}", style=STYLES.get(found, ""))
    if name in ("wer", "cost") and found is not None:
        return Text(f"{found:.{2 if name == 'wer' else 1}f}")
    return Text(_short(trial) if name == "directory" else "-" if found is None else shown(found))


def write_csv(trials: list[Trial], names: list[str], path: Path) -> None:
    """A line a trial; numbers as they are, nothing where there is none."""
    with refusals_reported(path), open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "stage", "reason"])
        writer.writerows([*(value(trial, name) for name in names), trial.stage, trial.reason] for trial in trials)


def plot(trials: list[Trial], names: list[str], path: Path) -> None:
    """An axis a setting, a line a trial that is done, its color the error rate."""
    from local.plots import plot_parallel

    done = [trial for trial in trials if trial.wer is not None]
    if not done:
        raise InputError(f"{path}: no trial is done yet; there is nothing to draw")
    axes = [name for name in names if name not in ("state", "cost", "directory", "wer")]
    axes = [name for name in axes if len({str(value(trial, name)) for trial in done}) > 1]
    rows = [[value(trial, name) for name in [*axes, "wer"]] for trial in done]
    rows = [[shown(found) if isinstance(found, list) else found for found in row] for row in rows]
    with refusals_reported(path):
        plot_parallel([*axes, titles(done)["wer"]], rows, path)


def main() -> None:
    """Read, sort, show, and write what is asked for."""
    args = arguments()
    try:
        with refusals_reported(args.exp):
            trials = Tree(args.exp).trials()
        if not trials:
            raise InputError(f"{args.exp}: no trials; expected the exp/ of a sweep, which ./run.sh makes")
        names = columns(trials)
        if args.sort not in names:
            raise InputError(f"--sort {args.sort}: no such column; there are: {', '.join(names)}")
        trials = ordered(trials, args.sort)
        if args.csv:
            write_csv(trials, names, args.csv)
        if args.plot:
            plot(trials, names, args.plot)
    except InputError as error:
        sys.exit(f"error: {error}")
    show(trials, names, Console(width=terminal.WIDE))


if __name__ == "__main__":
    main()
