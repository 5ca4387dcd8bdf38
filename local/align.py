"""What was said above what was heard, utterance by utterance, with the errors between them."""

import argparse
import sys
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from local.edits import tally
from local.errors import InputError
from local.scoring import Alignment, read_alignments, read_worst

STYLES = {"C": "", "S": "bold magenta", "D": "bold red", "I": "bold cyan"}
INDENT = 4  # columns, of "ref" and the like


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m local.align",
        description=__doc__,
        epilog="Below a reference and its hypothesis stands S for a substitution, D for a deletion and I for an "
        "insertion. In color on a terminal, where lines are cut to its width; plain, and a line each, in a pipe.",
    )
    parser.add_argument(
        "directory",
        type=Path,
        metavar="SCORE_DIR",
        help="of a split, as exp/<corpus>/<labels>/<arm>/<decoder>/score/test",
    )
    parser.add_argument(
        "utterances", nargs="*", metavar="UTTERANCE", help="which to show, else those of its file worst"
    )
    parser.add_argument("--all", action="store_true", help="show every utterance, the right ones too")
    return parser.parse_args()


def chosen(args: argparse.Namespace) -> list[Alignment]:
    """The alignments that are asked for, in the order asked for. Raises InputError for an unknown utterance."""
    found = {one.id: one for one in read_alignments(args.directory)}
    wanted = list(found) if args.all else args.utterances or read_worst(args.directory)
    if unknown := [key for key in wanted if key not in found]:
        raise InputError(
            f"{args.directory}: has no utterance {unknown[0]}, but {len(found)} such as {min(found)}; see its per_utt"
        )
    return [found[key] for key in wanted]


def show(one: Alignment, console: Console, width: int | None) -> None:
    """An utterance's errors, and its lines, cut into pieces of at most `width` columns."""
    counts = tally(one.ops)
    rate = "" if counts.rate is None else f", {counts.rate:.2f} %"
    console.print(Text(f"{one.id}: {counts.errors} errors of {counts.length} words{rate}", "bold"))
    steps = list(zip(*one.rows, strict=True))
    while steps:
        lines = [Text(name.ljust(INDENT)) for name in ("ref", "hyp", "")]
        count = 0
        for *words, op in steps:
            size = 1 + max(map(cell_len, words))
            if count and width and lines[0].cell_len + size > width:
                break
            for line, cell in zip(lines, (*words, "" if op == "C" else op), strict=True):
                line.append(cell + " " * (size - cell_len(cell)), STYLES[op])
            count += 1
        for line in lines:
            line.rstrip()
            console.print(line, no_wrap=True, overflow="ignore", crop=False)
        steps = steps[count:]
    console.print()


def main() -> None:
    """Show what is asked for."""
    args = arguments()
    try:
        alignments = chosen(args)
    except InputError as error:
        sys.exit(f"error: {error}")
    console = Console(highlight=False)
    if not alignments:
        console.print("no utterance has an error")
    for one in alignments:
        show(one, console, console.width if console.is_terminal else None)


if __name__ == "__main__":
    main()
