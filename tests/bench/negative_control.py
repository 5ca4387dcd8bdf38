"""Two sets of seeds of one arm, compared as if they were two arms: the report has to say "cannot tell".

    ./run.sh arm=none seed=1,2,3,4,5,6
    python -m tests.bench.negative_control exp/espeak/report

Every row of the report with six seeds or more is parted in two: in the order of seeds, the odd places stand in for
the baseline, the even ones for an arm called `again`. One way to part them, fixed in advance; by chance, one such
comparison in twenty finds a difference.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from local.errors import InputError
from local.results import ENTRY, ROW, Cell, entries
from local.significance import MIN_SEEDS
from local.stage import read_marker
from local.stages.report import listed, scored
from local.tables import WIDTH, print_table


def parted(cells: list[Cell]) -> list[Cell]:
    """The cells of one row as those of two arms, `none` and `again`."""
    names = ("none", "again")
    return [replace(cell, arm=names[i % 2]) for i, cell in enumerate(sorted(cells, key=lambda cell: cell.seed))]


def controls(cells: list[Cell]) -> list[tuple[str, list[dict]]]:
    """What each row is, and the entries that compare its halves. Raises InputError if no row has seeds enough."""
    rows: dict[tuple, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(tuple(getattr(cell, name) for name in (*ENTRY, *ROW)), []).append(cell)
    found = []
    for row in rows.values():
        if len(row) >= 2 * MIN_SEEDS:
            one, other = (
                ", ".join(str(cell.seed) for cell in parted(row) if cell.arm == name) for name in ("none", "again")
            )
            title = f"{row[0].arm} ({row[0].frontend}): seeds {one} as none, seeds {other} as again"
            found.append((title, entries(parted(row))))
    if not found:
        raise InputError(f"no arm has {2 * MIN_SEEDS} seeds; run ./run.sh arm=none seed=1,2,3,4,5,6 first")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="the directory that stage 8 wrote, such as exp/espeak/report")
    directory = parser.parse_args().report
    marker = read_marker(directory)
    if marker is None:
        sys.exit(f"error: {directory}: not a finished report; run stage 8 first")
    try:
        found = controls(scored(listed(marker["config"]["cells"])))
    except InputError as error:
        sys.exit(f"error: {error}")
    for title, compared in found:
        print(title)
        print_table(compared, Console(width=WIDTH))


if __name__ == "__main__":
    main()
