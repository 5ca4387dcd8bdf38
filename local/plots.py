"""The pictures of a report, as PNG files; the same content gives the same bytes."""

from collections.abc import Callable
from pathlib import Path

AXES = {"labeled_hours": "labels", "unlabeled_hours": "unlabeled"}  # what a plot is over, and whose settings say that
SERIES = ("corpus", "split", "decoder", "rate")  # what the lines of one picture have in common


def _figure(draw: Callable, path: Path, **labels: str) -> None:
    """Let `draw` fill the axes of a picture at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and only the report plots
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    draw(axes)
    axes.set(**labels)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def plot_curves(curves: dict[str, list[tuple[int, float]]], rate: str, path: Path) -> None:
    """The validation `rate` in percent against updates, a line a cell, as a PNG at `path`."""

    def draw(axes) -> None:
        for name, points in sorted(curves.items()):
            updates, wers = zip(*points, strict=True) if points else ((), ())
            axes.plot(updates, wers, marker=".", label=name)

    _figure(draw, path, xlabel="updates", ylabel=f"validation {rate} (%)")


def lines(found: list[dict], over: str) -> dict[tuple, dict[str, list[dict]]]:
    """For each of SERIES in the content of results.json, the rows of each line, in order of the hours `over`.

    `over` is a key of AXES. A line is an arm with its settings but those of the axis; of a row that has no such hours,
    as that of an arm which reads no unlabeled audio, a line of its own. A series without two hours in one line is left
    out: there is nothing to see.
    """
    series: dict[tuple, dict[str, list[dict]]] = {}
    for entry in found:
        named = series.setdefault(tuple(entry[name] for name in SERIES), {})
        for row in entry["arms"]:
            settings = [s for s in row["settings"].split() if not s.startswith((AXES[over] + ".", AXES[over] + "="))]
            named.setdefault(" ".join([row["arm"], *settings]), []).append(row)
    return {
        key: {name: sorted(rows, key=lambda row: row[over] or 0) for name, rows in named.items()}
        for key, named in series.items()
        if any(len({row[over] for row in rows} - {None}) > 1 for rows in named.values())
    }


def plot_hours(found: list[dict], over: str, directory: Path) -> None:
    """A picture of each of the `lines` of results.json in `directory`: the rate and its 95 % interval against hours.

    An arm without such hours is a level line.
    """
    for (corpus, split, decoder, rate), named in lines(found, over).items():

        def draw(axes, named=named) -> None:
            for number, (name, rows) in enumerate(named.items()):
                rates = [row["wer"] for row in rows]
                if rows[0][over] is None:
                    axes.axhline(rates[0], label=name, linestyle="--", color=f"C{number % 10}")
                    continue
                hours = [row[over] for row in rows]
                axes.plot(hours, rates, marker="o", label=name, color=f"C{number % 10}")
                bounds = [row["ci"] for row in rows if row["ci"][0] is not None]
                if len(bounds) == len(rows):
                    axes.fill_between(hours, *zip(*bounds, strict=True), alpha=0.12, color=f"C{number % 10}")
            axes.set_xscale("log")
            marks = sorted({row[over] for rows in named.values() for row in rows} - {None})
            axes.set_xticks(marks, [f"{hours:.2g}" for hours in marks])
            axes.minorticks_off()

        labels = {"xlabel": over.replace("_", " "), "ylabel": f"{rate} (%)"}
        title = f"{corpus}, {split}, decoder {decoder}"
        _figure(draw, directory / f"{over}-{split}-{decoder}.png", title=title, **labels)
