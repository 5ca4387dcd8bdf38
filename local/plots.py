"""The pictures of a report and of a leaderboard: PNG, and SVG for the page; the same content gives the same bytes."""

import math
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np

AXES = {"labeled_hours": "labels", "unlabeled_hours": "unlabeled"}  # what a plot is over, and whose settings say that
SERIES = ("corpus", "split", "decoder", "rate")  # what the lines of one picture have in common
KINDS = {"sub": "substituted", "del": "deleted", "ins": "inserted"}
HEIGHT, LINE = 4, 0.18  # inches, of a picture without a legend, and of a line of text
SIDE, BELOW = 36, 75  # characters in a line beside the axes, and below them
NAMED = 40  # bars at most that have their names below them
BARE = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # of the metadata that matplotlib would write


def _figure(draw: Callable, path: Path, height: float = HEIGHT, svg: bool = True, **labels: str) -> None:
    """Let `draw` fill the axes of a picture at `path`, a PNG, beside which the SVG is put, if it is wanted."""
    from matplotlib import rc_context  # slow to import, and only the report plots
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem, "text.parse_math": False}):
        figure = Figure(figsize=(6, height), layout="constrained")
        axes = FigureCanvasAgg(figure).figure.add_subplot()
        draw(axes)
        axes.set(**labels)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        handles, named = axes.get_legend_handles_labels()
        if named:
            columns = 3 if max(map(len, named)) < BELOW / 4 else 1
            named = [textwrap.fill(name, BELOW) for name in named]
            figure.legend(handles, named, loc="outside lower center", ncols=columns, fontsize="small", frameon=False)
            figure.set_figheight(height + LINE * "\n".join(named).count("\n") / columns)
        figure.savefig(path, format="png", dpi=160, metadata={"Software": None})
        if svg:
            about = BARE | {"Title": labels.get("title") or labels["ylabel"]}
            figure.savefig(path.with_suffix(".svg"), format="svg", transparent=True, metadata=about)


def plot_curves(curves: dict[str, list[list[tuple[int, float]]]], rate: str, about: str, path: Path) -> None:
    """The validation `rate` in percent against updates: of each row, by name, a line a seed."""

    def draw(axes) -> None:
        for number, (name, seeds) in enumerate(curves.items()):
            for i, points in enumerate(seeds):
                updates, wers = zip(*points, strict=True) if points else ((), ())
                label = name if i == 0 else None
                axes.plot(updates, wers, marker=".", linewidth=1, label=label, color=f"C{number % 10}")

    _figure(draw, path, xlabel="updates", ylabel=f"validation {rate} (%)", title=f"{about}, a line a seed")


def plot_errors(entry: dict, path: Path) -> None:
    """The kinds of errors of each row of an entry of results.json, means over seeds, in percent of the reference."""
    from local.tables import names  # which imports SciPy, and a leaderboard does without

    named, words = names(entry), entry["reference"]["words"]
    labels = [textwrap.fill(named[row["arm"], row["signature"]], SIDE) for row in entry["arms"]]

    def draw(axes) -> None:
        left = np.zeros(len(entry["arms"]))
        places = np.arange(len(labels))
        for number, (kind, name) in enumerate(KINDS.items()):
            counts = [np.mean([seed["errors"][kind] for seed in row["seeds"]]) for row in entry["arms"]]
            share = 100 * np.array(counts) / words
            axes.barh(places, share, left=left, label=name, color=f"C{number}")
            left += share
        for place, total in zip(places, left, strict=True):
            axes.text(total, place, f" {total:.2f}", va="center")
        axes.set_yticks(places, labels, fontsize="small")
        axes.invert_yaxis()
        axes.margins(x=0.12, y=0.01)

    height = max(HEIGHT, LINE * len("\n".join(labels).split("\n")) + LINE * len(labels))
    _figure(draw, path, height, xlabel=f"{entry['rate']} (%)", title="errors by kind, means over seeds")


def plot_differences(bars: list[tuple[str, float]], path: Path, **labels: str) -> None:
    """A bar for each name and difference, in their order; many names are left out."""

    def draw(axes) -> None:
        deltas = [delta for _, delta in bars]
        axes.bar(range(len(bars)), deltas, color=["C0" if delta < 0 else "C1" for delta in deltas])
        axes.axhline(0, color="black", linewidth=0.8)
        few = len(bars) <= NAMED
        axes.set_xticks(range(len(bars)) if few else [], [name for name, _ in bars] if few else [])
        axes.tick_params("x", rotation=90 if len(bars) > 8 else 0, length=0)
        axes.margins(x=0.02)

    _figure(draw, path, **labels)


def lines(found: list[dict], over: str) -> dict[tuple, dict[str, list[dict]]]:
    """For each of SERIES in the content of results.json, the rows of each line, in order of the hours `over`.

    `over` is a key of AXES. A line is an arm, its points in the settings that it has there, as more updates where there
    are more labels; the line's name has those in common and says which are not. Where an arm is more than once at some
    hours, each of its settings but those of the axis is a line, and of a row that has no such hours, as that of an arm
    which reads no unlabeled audio, a line of its own. A series without two hours in one line is left out: there is
    nothing to see.
    """
    series: dict[tuple, dict[str, list[dict]]] = {}
    for entry in found:
        arms = series.setdefault(tuple(entry[name] for name in SERIES), {})
        for row in entry["arms"]:
            arms.setdefault(row["arm"], []).append(row)
    drawn = {}
    for key, arms in series.items():
        named: dict[str, list[dict]] = {}
        for arm, rows in arms.items():
            named |= _named(arm, sorted(rows, key=lambda row: row[over] or 0), over)
        if any(len({row[over] for row in rows} - {None}) > 1 for rows in named.values()):
            drawn[key] = named
    return drawn


def _named(arm: str, rows: list[dict], over: str) -> dict[str, list[dict]]:
    """The lines of an arm, by name, their rows in the order given."""
    elsewhere = (AXES[over] + ".hours=", AXES[over] + "=", "decoder=")  # on the axis, and in the title
    settings = [[s for s in row["settings"].split() if not s.startswith(elsewhere)] for row in rows]
    if len({row[over] for row in rows}) == len(rows):
        common = [s for s in settings[0] if all(s in own for own in settings)]
        unlike = dict.fromkeys(s.split("=")[0] for own in settings for s in own if s not in common)
        ending = f" ({', '.join(unlike)} by hours)" if unlike else ""
        return {" ".join([arm, *common]) + ending: rows}
    named: dict[str, list[dict]] = {}
    for row, own in zip(rows, settings, strict=True):
        named.setdefault(" ".join([arm, *own]), []).append(row)
    return named


def plot_hours(found: list[dict], over: str, directory: Path) -> None:
    """A picture of each of the `lines` of results.json in `directory`: the rate and its 95 % interval against hours.

    An arm without such hours is a level line.
    """
    names: list[str] = []
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
        names.append(f"{over}-{split}-{decoder}")
        number = f"-{names.count(names[-1])}" if names.count(names[-1]) > 1 else ""  # of another corpus or rate
        _figure(draw, directory / f"{names[-1]}{number}.png", title=title, **labels)


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

    _figure(draw, path, svg=False, xlim=(-0.2, len(names) - 0.5), ylim=(-0.05, 1.05))


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
