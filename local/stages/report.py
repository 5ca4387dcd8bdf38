"""Stage 8: the comparison of a sweep's cells, as RESULTS.md, results.json, curves.png and a table."""

import json
import logging
import shutil
from pathlib import Path

from local.errors import InputError
from local.marker import digest, read_marker
from local.stage import require, stage

log = logging.getLogger(__name__)
COPIED = ("corpus", "label_hours", "decoder", "arm", "frontend", "signature", "seed")  # of a cell, as it is
COPIED += ("rate", "settings", "shared", "unsized", "front_end")


def listed(path: str | None) -> list[dict]:
    """The cells of the sweep that wrote the list at `path`."""
    if path is None:
        raise InputError("the report compares the cells of a sweep; run it with -m, as ./run.sh does")
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _scores(cfg) -> dict:
    """The cells and the markers of their scores: what a report depends on besides its own settings."""
    return {"cells": cfg.cells, "scores": [digest(read_marker(cell["dirs"]["score"])) for cell in listed(cfg.cells)]}


def _json(directory: str, name: str):
    return json.loads((Path(directory) / name).read_text(encoding="utf-8"))


def scored(cells: list[dict]) -> list:
    """A results.Cell for each scored split; a sweep that decodes dev alone is reported on dev."""
    from local.results import Cell

    found = []
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
        splits = [split for split in cell["splits"] if split != "dev"] or ["dev"]
        found += [
            Cell(
                split=split, score_dir=Path(dirs["score"]) / split, dev_score_dir=Path(dirs["score"]) / "dev",
                parameters=trained["parameters"] + frozen, dropped=trained["health"]["dropped"],
                updates=trained["updates"] + pretrained["updates"],
                device_seconds=trained["device_seconds"] + pretrained["device_seconds"],
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
        for name in ("RESULTS.md", "results.json"):
            shutil.copyfile(out / name, Path("recipes") / cfg.corpus.name / name)
    log.info("report: %s", out / "RESULTS.md")


@stage(writes="report", extra=_scores, after=_show)
def run(cfg, partial) -> None:
    from local import logger
    from local.results import entries
    from local.tables import plot_curves, render_markdown

    cells = listed(cfg.cells)
    made = [cell["dirs"][key] for cell in cells for key in ("features", "pretrain", "bottleneck", "finetune", "score")]
    commits = {str(marker["commit"]) for directory in made if directory and (marker := read_marker(directory))}
    if len(commits) > 1:
        log.warning("results of different commits are compared: %s", ", ".join(sorted(commits)))
    found = entries(scored(cells))
    (partial / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (partial / "RESULTS.md").write_text(render_markdown(found), encoding="utf-8")
    curves = {}
    for cell in cells:
        rows = _json(cell["dirs"]["finetune"], "history.json")
        name = f"{cell['arm']} {cell['signature']} seed {cell['seed']}"
        curves[name] = [(row["step"], row["val_wer"]) for row in rows]
    plot_curves(curves, cells[0]["rate"], partial / "curves.png")
    logger.log_report(cfg, partial, found)
