"""The list of a sweep's cells, by which the report and the leaderboard know them: exp/cells/<digest>.json."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from local.composition import duplicate
from local.config import digest_of, named, plain, signed_keys, unnamed
from local.marker import write_atomically
from local.stage import MAKER

OWN = ("frontend", "frontend_rate", "layer_decay", "thaw", "learning_rate")  # what an arm may have to itself
SIZE = ("width", "layers")  # the settings that say how large a recognizer is


def digests(cfg: DictConfig) -> dict[str, str]:
    """Of what two arms must have in common to be compared, as local/results.py compares them.

    `shared` is all but the front end and the learning rates, which are tuned for each arm; `unsized` leaves out the
    recognizer's size too, for the arm whose recognizer is larger on purpose, and `untimed` its updates, for the arm
    that trains longer on purpose; `front_end` is the front end but for how long, and on how much audio, it was trained.
    """
    recognizer = {k: v for k, v in plain(cfg, "recognizer").items() if k not in OWN}
    unsized = {k: v for k, v in recognizer.items() if k not in SIZE}
    unsized["encoder"] = {k: v for k, v in recognizer["encoder"].items() if k not in SIZE}
    untimed = {k: v for k, v in recognizer.items() if k != "updates"}
    common = {key: plain(cfg, key) for key in ("labels", "units", "decoder", "dirs.features")}
    if cfg.labels.hypotheses is not None:
        common["labels"]["hypotheses"] = "of each arm's own"
    autoencoder = {k: v for k, v in plain(cfg, "autoencoder").items() if k not in ("trained", "updates")}
    unlabeled = {k: v for k, v in plain(cfg, "unlabeled").items() if k != "hours"}
    front_end = {"autoencoder": autoencoder, "unlabeled": unlabeled, "frontend": cfg.recognizer.frontend}
    alike = {"shared": recognizer, "unsized": unsized, "untimed": untimed}
    found = {name: common | {"recognizer": settings} for name, settings in alike.items()} | {"front_end": front_end}
    return {key: digest_of({key: values}) for key, values in found.items()}


def settings(cfg: DictConfig) -> dict:
    """All that the directories of a cell sign."""
    signed = {key for name in MAKER if cfg.dirs[name] for key in signed_keys(cfg, name)}
    return {key: plain(cfg, key) for key in sorted(signed) if not key.startswith("dirs.")}


def _row(cfg: DictConfig) -> dict:
    """What the cells of a row of the report have in common, of the configuration of any of them."""
    seedless = unnamed(duplicate(cfg))
    seedless.seed = None  # and with it what follows the seed, as `labels.seed` may
    named(seedless)
    signed = digest_of({"dirs.decode": seedless.dirs.decode})
    return {"label_subset": seedless.labels.seed, "signature": signed, **digests(seedless)}


def _entry(cfg: DictConfig, row: dict, swept: list[str]) -> dict:
    """What report and leaderboard need of a cell."""
    dirs = OmegaConf.to_container(named(cfg).dirs)
    return {
        # It sees all that a speaker of test says before it decodes the first word, and must be told from others.
        "corpus": cfg.corpus.name + ", transductive CMVN per speaker" * (cfg.features.cmvn == "speaker"),
        "label_hours": None if cfg.labels.hours == "all" else cfg.labels.hours,
        "label_subset": row["label_subset"],
        "reads_unlabeled": bool(dirs["pretrain"]) and plain(cfg, "autoencoder").get("trained", True),
        "arm": cfg.arm.name,
        "frontend": cfg.recognizer.frontend,
        "settings": " ".join(swept),
        **{key: value for key, value in row.items() if key != "label_subset"},
        "seed": cfg.seed,
        "decoder": cfg.decoder.name,
        "rate": cfg.units.rate,
        "best": plain(cfg, "recognizer").get("best", "wer"),
        "splits": list(cfg.decoder.splits or ()),
        "dirs": dirs,
        "config": settings(cfg),
    }


def write(cells: list[tuple[list[str], DictConfig]], name: str = "", more: Mapping[str, dict] = {}) -> str:
    """Write what report and leaderboard need of each cell to a file of that name, or named by its content; return it.

    A cell comes with the swept overrides that made it, but for arm and seed; of several that made the same, those that
    they share. `more` has what else is to be said of some, by their score directories. A dry run writes nothing.
    """
    rows, found, made = {}, {}, {}
    for swept, cfg in cells:
        alike = (cfg.hydra.runtime.choices.arm, *swept)
        if alike not in rows:
            rows[alike] = _row(cfg)
        score = named(cfg).dirs.score
        made[score] = [o for o in made.get(score, swept) if o in swept]
        found[score] = cfg, rows[alike]
    entries = [_entry(cfg, row, made[score]) | more.get(score, {}) for score, (cfg, row) in found.items()]
    text = json.dumps(entries, indent=1) + "\n"
    path = Path("exp/cells") / f"{name or hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    if not cells[0][1].dry_run and not (path.exists() and path.read_text(encoding="utf-8") == text):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return str(path)
