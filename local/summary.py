"""What stage 1 says of a corpus: a row of numbers for each split, and what the splits share."""

from io import StringIO

from rich.console import Console
from rich.table import Table

from local import audit, manifest
from local.ledger import Ledger

WIDTH = 100  # columns
HEADER = ("", "utterances", "left out", "speakers", "hours", "words", "types", "OOV %")
HEADER += ("seconds: min", "median", "max", "kHz")


def corpus_rows(ledger: Ledger, left_out: dict[str, int]) -> list[list[str]]:
    """A header and a row for each split, of which so many utterances are `left_out`.

    OOV is the share of the words of dev and of test sets whose type is not in `train`.
    """
    rows, train = [HEADER], {}
    for split in left_out:
        n, words = ledger.numbers(split), ledger.words(split)
        if split == "train":
            train = words
        running, outside = sum(words.values()), sum(c for word, c in words.items() if word not in train)
        oov = f"{100 * outside / running:.2f}" if manifest.held_out(split) and running and train else "-"
        counts = (n["utterances"], left_out[split], n["speakers"], f"{n['hours']:.2f}", running, len(words))
        rows.append(
            [split, *(c if isinstance(c, str) else f"{c:,}" for c in counts), oov]
            + [f"{seconds:.2f}" for seconds in n["durations"]]
            + ["/".join(f"{rate / 1000:g}" for rate in n["rates"])]
        )
    return rows


def overlaps(found: dict, pairs: tuple, allowed: list[str]) -> list[list[str]]:
    """A header and a row for each pair of splits, a column for each kind of thing that they may share."""
    rows = [[f"{a}-{b}", *(audit.cell(found, kind, (a, b), allowed) for kind in found)] for a, b in pairs]
    return [["shared by", *found], *rows]


def render(*tables: list[list[str]]) -> str:
    """Tables, each of which begins with its header, as plain text."""
    console = Console(file=StringIO(), width=WIDTH, color_system=None)
    for header, *rows in tables:
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()).rstrip() + "\n"
