"""The pictures of a report and of a leaderboard, as PNG files; the same content gives the same bytes."""

import math
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


def plot_parallel(names: list[str], rows: list[list], path: Path) -> None:
    """Parallel coordinates: an axis for each of `names`, a line for each row, colored by the number that is its last.

    An axis is a scale if all of its values are numbers, logarithmic if they span a decade; else they stand in order.
    """
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    columns = list(zip(*rows, strict=True))
    heights, marks = zip(*map(_scale, columns), strict=True)
    shades = colormaps["viridis"]

    background = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}

    def draw(axes) -> None:
        lines = sorted(zip(*heights, strict=True), key=lambda line: -line[-1])  # the best on top
        colors = [shades(line[-1]) for line in lines]
        axes.add_collection(
            LineCollection([[*enumerate(line)] for line in lines], colors=colors, alpha=0.7, linewidths=1)
        )
        for place, ticks in enumerate(marks):
            for height, text in ticks:
                axes.annotate(text, (place, height), fontsize="x-small", ha="left", va="bottom", bbox=background)
        axes.set_xticks(range(len(names)), [name.replace(".", ".\n") for name in names], fontsize="x-small")
        axes.set_yticks([])

    _figure(draw, path, xlim=(-0.2, len(names) - 0.5), ylim=(-0.05, 1.05))


def _scale(values: tuple) -> tuple[list[float], list[tuple[float, str]]]:
    """The height between 0 and 1 of each value, and the marks (height, text) of their axis."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        decade = low > 0 and high >= 10 * low
        place = [math.log(value / low) if decade else value - low for value in values]
        top = max(place) or 1.0
        return [height / top for height in place], [(0.0, f"{low:.4g}"), (max(place) / top, f"{high:.4g}")]
    order = sorted(set(map(str, values)))
    height = {text: rank / max(1, len(order) - 1) for rank, text in enumerate(order)}
    return [height[str(value)] for value in values], [(height[text], text) for text in order]
