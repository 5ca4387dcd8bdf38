"""Stage 8: the comparison of a sweep's cells, as a page, RESULTS.md, results.json, pictures and a table."""

import json
import logging
import shutil
from pathlib import Path

from local.errors import InputError
from local.manifest import held_out, rows
from local.marker import commit, digest, read_json, read_marker
from local.stage import require, stage

log = logging.getLogger(__name__)
COPIED = ("corpus", "label_hours", "label_subset", "decoder", "arm", "frontend", "signature", "seed")  # as they are
COPIED += ("rate", "best", "settings", "shared", "unsized", "untimed", "front_end")


def listed(path: str | None) -> list[dict]:
    """The cells of the sweep that wrote the list at `path`."""
    if path is None:
        raise InputError("the report compares the cells of a sweep; run it with -m, as ./run.sh does")
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _scores(cfg) -> dict:
    """The cells, the markers of their scores, what bottlenecks hold and trainings took: what it depends on."""
    cells = listed(cfg.cells)
    scores = [digest(read_marker(cell["dirs"]["score"])) for cell in cells]
    found = {"quality": [_quality(cell) for cell in cells], "trained": [_trained(cell) for cell in cells]}
    return {"cells": cfg.cells, "scores": scores} | found


def _trained(cell: dict) -> list:
    """What its trainings took and by which commits: one made anew may end in the same scores, but not as fast."""
    made = [Path(cell["dirs"][key]) for key in ("pretrain", "finetune") if cell["dirs"][key]]
    return [[read_json(path / "summary.json"), (read_marker(path) or {}).get("commit")] for path in made]


def _quality(cell: dict) -> dict | None:
    """What its bottleneck holds, if it has one and that was measured."""
    return read_json(Path(cell["dirs"]["bottleneck"]) / "quality.json") if cell["dirs"]["bottleneck"] else None


def _json(directory: str, name: str):
    return json.loads((Path(directory) / name).read_text(encoding="utf-8"))


def _hours(data: str) -> float:
    """Of all the labeled audio."""
    return sum(float(seconds) for _, _, seconds in rows(Path(data) / "train/utt2dur")) / 3600


def _teachers(cell: dict) -> list[dict]:
    """The summary of the recognizer, if it is one of ours, whose hypotheses this one was trained on."""
    heard = cell["config"]["labels"].get("hypotheses")  # <recognizer>/<decoder>/<split>/text
    recognizer = Path(str(heard)).parent.parent.parent
    if heard is None or (read_marker(recognizer) or {}).get("stage") != "finetune":
        return []
    return [_json(str(recognizer), "summary.json")]


def scored(cells: list[dict]) -> list:
    """A results.Cell for each scored split; a sweep that decodes dev alone is reported on dev."""
    from local.results import Cell

    found = []
    hours = {data: _hours(data) for data in {cell["dirs"]["data"] for cell in cells if not cell["label_hours"]}}
    for cell in cells:
        dirs = cell["dirs"]
        for key in ("pretrain", "finetune", "score"):
            if dirs[key]:
                require(dirs[key], key)
        trained = _json(dirs["finetune"], "summary.json")
        pretrained = {"device_seconds": 0.0, "updates": 0, "parameters": 0}
        if dirs["pretrain"]:
            pretrained = _json(dirs["pretrain"], "summary.json")
        frozen = 0 if cell["frontend"] == "finetuned" else pretrained["parameters"]  # else counted by the recognizer
        spent = [trained, pretrained, *_teachers(cell)]
        splits = [split for split in cell["splits"] if held_out(split) and split != "dev"] or ["dev"]
        found += [
            Cell(
                split=split, score_dir=Path(dirs["score"]) / split, dev_score_dir=Path(dirs["score"]) / "dev",
                parameters=trained["parameters"] + frozen, dropped=trained["health"]["dropped"],
                updates=sum(each["updates"] for each in spent),
                device_seconds=sum(each["device_seconds"] for each in spent),
                augmentation=trained["augmentation"], quality=_quality(cell),
                tuning=read_json(Path(dirs["decode"]) / "tuning.json"), trial=cell.get("trial"),
                trials=cell.get("trials"),
                labeled_hours=cell["label_hours"] or hours[dirs["data"]],
                unlabeled_hours=pretrained["hours"] if cell["reads_unlabeled"] else None,
                **{key: cell[key] for key in COPIED},
            )
            for split in splits
        ]  # fmt: skip
    return found


def _show(cfg) -> None:
    """The table on the terminal, whether the report is new or not."""
    from rich.console import Console

    from local.tables import print_table

    out = Path(cfg.dirs.report)
    console = Console()
    print_table(_json(str(out), "results.json"), console if console.is_terminal else Console(width=100))
    if cfg.publish:
        published = Path(cfg.dirs.published)
        published.mkdir(parents=True, exist_ok=True)
        for path in (out / "RESULTS.md", out / "results.json", *out.glob("*_hours-*.png")):
            shutil.copyfile(path, published / path.name)
    log.info("report: %s and %s", out / "index.html", out / "RESULTS.md")


def _draw(cells: list[dict], found: list[dict], scores: list, partial: Path) -> None:
    """The pictures: of the whole sweep, of each entry, and of each comparison of a pretrained arm."""
    from local import differences, plots

    for over in plots.AXES:
        plots.plot_hours(found, over, partial)
    trained, drawn = {cell["dirs"]["score"]: cell["dirs"]["finetune"] for cell in cells}, []
    for number, entry in enumerate(found, 1):
        by_row = differences.rows(entry, scores)
        made = [[trained[str(cell.score_dir.parent)] for cell in row] for row in by_row.values()]
        if made not in drawn:  # entries of several decoders or splits have trainings in common
            drawn.append(made)
            _draw_curves(entry, dict(zip(by_row, made, strict=True)), partial / f"curves-{number}.png")
        plots.plot_errors(entry, partial / f"errors-{number}.png")
        for i, c in enumerate(differences.contrasts(entry), 1):
            _draw_differences(entry, c, by_row, f"{number}-{i}", partial)
    for cell in cells:
        held = cell["dirs"]["bottleneck"]
        copy = partial / f"reconstruction-{cell['arm']}-{cell['front_end']}.png"  # of the first seed
        if held and (picture := Path(held) / "reconstruction.png").exists() and not copy.exists():
            shutil.copyfile(picture, copy)


def _draw_curves(entry: dict, made: dict[tuple, list[str]], path: Path) -> None:
    """The curves of an entry's trainings, whose directories are `made`, by row."""
    from local import plots, tables

    named, curves = tables.names(entry), {}
    for key, directories in made.items():
        histories = (_json(directory, "history.json") for directory in directories)
        curves[named[key]] = [[(point["step"], point["val_wer"]) for point in history] for history in histories]
    plots.plot_curves(curves, entry["rate"], tables.budget(entry), path)


def _draw_differences(entry: dict, c: dict, by_row: dict[tuple, list], number: str, partial: Path) -> None:
    """The pictures of a comparison: its difference by speaker, and by gender and duration."""
    from local import differences, plots, tables

    both, said = differences.cells_of(c, by_row), " minus ".join(tables.pair(entry, c))
    speakers = [(name, d) for name, _, d in sorted(differences.by("per_spk", *both), key=lambda bar: bar[2])]
    groups = [(f"{name.partition('=')[2]}\n{n:,}", d) for name, n, d in differences.by("per_group", *both)]
    for what, bars, below in (
        ("speakers", speakers, f"{len(speakers)} speakers"),
        ("groups", groups, "gender and duration, with the length of the reference"),
    ):
        if bars:
            labels = {"title": said, "xlabel": below, "ylabel": f"{entry['rate']}, points"}
            plots.plot_differences(bars, partial / f"{what}-{number}.png", **labels)


@stage(writes="report", extra=_scores, after=_show)
def run(cfg, partial) -> None:
    from local import logger, page
    from local.results import entries
    from local.tables import render_markdown

    cells = listed(cfg.cells)
    made = [cell["dirs"][key] for cell in cells for key in ("features", "pretrain", "bottleneck", "finetune", "score")]
    commits = {str(marker["commit"]) for directory in made if directory and (marker := read_marker(directory))}
    if len(commits) > 1:
        log.warning("results of different commits are compared: %s", ", ".join(sorted(commits)))
    scores = scored(cells)
    found = entries(scores)
    (partial / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (partial / "RESULTS.md").write_text(render_markdown(found), encoding="utf-8")
    _draw(cells, found, scores, partial)
    html = page.render(found, scores, cells, partial, commit())
    (partial / "index.html").write_text(html, encoding="utf-8")
    logger.log_report(cfg, partial, found, cells)
