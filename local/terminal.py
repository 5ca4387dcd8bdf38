"""Tables on a terminal."""

from rich.table import Table

WIDE = 1000  # columns of output: a table is as wide as it must be, and a terminal folds its lines


def table() -> Table:
    """An empty one, without lines."""
    return Table(box=None, header_style="cyan", padding=(0, 1, 0, 0))
