"""Stage 6: hypotheses for dev, and for test if the decoder's settings say so.

What a decoder lets choose, dev chooses: `tuning.json` has the trials, and what choosing on test would have claimed.
"""

import json
import logging
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from hydra.utils import get_class

from local import ark, audit, manifest, ranges
from local.config import plain
from local.corpora import check_splits, normalizer
from local.errors import InputError
from local.frontend import features_of, source
from local.labels import subset
from local.marker import read_marker
from local.stage import cell_name, stage
from local.text import fold

log = logging.getLogger(__name__)


def _check(cfg) -> None:
    check_splits(cfg)
    if "dev" not in (cfg.decoder.splits or ()):
        raise InputError(f"decoder.splits={cfg.decoder.splits}: expected dev among them, which chooses; add it")
    count = cfg.decoder.nbest
    if count is not None and (not isinstance(count, int) or count < 1):
        raise InputError(f"decoder.nbest={count}: expected how many hypotheses to keep, 1 or more, or null")
    settings = plain(cfg, "decoder")
    ranges.check(cfg, "decoder")
    for name in settings.keys() & {"lm_weight", "word_score", "prior_weight"}:
        if not settings[name] or not all(isinstance(v, int | float) and math.isfinite(v) for v in settings[name]):
            raise InputError(f"decoder.{name}={settings[name]}: expected a list of numbers, of which dev chooses one")
    get_class(cfg.decoder._target_).check(plain(cfg, "units")["inventory"])
    if "train" in cfg.decoder.splits and cfg.dirs.lm and cfg.lm.text is not None and read_marker(cfg.dirs.features):
        _check_text(cfg)


@stage(writes="decode", reads=("finetune", "features", "bottleneck", "lm"), check=_check)
def run(cfg, partial) -> None:
    from local.search import Processes, tune

    settings, units = plain(cfg, "decoder"), plain(cfg, "units")
    workers = cfg.machine.workers // cfg.machine.jobs  # as many cells may be decoding side by side
    heard = log_probabilities(cfg)
    if "prior_weight" in settings:
        settings["prior"] = prior(heard["dev"].values())
        (partial / "prior.json").write_text(json.dumps(settings["prior"]) + "\n", encoding="utf-8")
    with Processes(settings, units["inventory"], workers) as decoder:

        @cache  # dev and perhaps test were decoded with what dev chose when that was tried
        def found(split: str, **setting: float) -> list:
            return decoder.search([*heard[split].values()], settings.get("nbest", 1), setting)

        def trials(split: str) -> list[dict]:
            def texts(setting: dict) -> list[str]:
                return [fold(best.text, units["scoring"]) for best, *_ in found(split, **setting)]

            return tune(texts, _references(cfg, split, [*heard[split]]), choices)

        choices, chosen = decoder.decoder.choices, {}
        if choices:
            tried = {split: trials(split) for split in heard if manifest.held_out(split)}
            chosen = {name: tried["dev"][0][name] for name in choices}
            (partial / "tuning.json").write_text(json.dumps(tried, indent=1) + "\n", encoding="utf-8")
            log.info("[%s] decode: dev chose %s of %d trials", cell_name(cfg), tried["dev"][0], len(tried["dev"]))
        for split, frames in heard.items():
            out = partial / split
            out.mkdir()
            _write(out, dict(zip(frames, found(split, **chosen), strict=True)), "nbest" in settings)
            if settings.get("posteriors"):
                ark.write(out / "posteriors", Path(cfg.dirs.decode) / split / "posteriors", frames)


def _check_text(cfg) -> None:
    """Raise InputError if train is to be heard with a language model of its transcripts, other than those given."""
    normalize = normalizer(cfg)
    train = manifest.used(cfg, "train")
    given = {u.text for u in subset(train, cfg.labels.hours, cfg.labels.seed)}
    hidden = {u.text for u in train} - given
    if shared := hidden.intersection(map(normalize, audit.sentences_of(cfg.lm.text))):
        raise InputError(
            f"lm.text={cfg.lm.text}: has {len(shared)} transcripts of train beside those with labels, such as "
            f"{min(shared)!r}; what is heard with it in train would be those, so take them out"
        )


def _write(out: Path, hypotheses: dict[str, list], nbest: bool) -> None:
    """`text`, and the tables of `nbest`, whose keys are utterance and rank as those of Kaldi's lattice-to-nbest."""
    tables = {"text": [f"{key} {best.text}" for key, (best, *_) in hypotheses.items()]}
    if nbest:
        ranked = [(f"{key}-{rank}", one) for key, each in hypotheses.items() for rank, one in enumerate(each, 1)]
        (out / "nbest").mkdir()
        tables["nbest/text"] = [f"{key} {one.text}" for key, one in ranked]
        tables["nbest/score"] = [f"{key} {one.score:.4f}" for key, one in ranked]
    for name, lines in tables.items():
        (out / name).write_text("".join(f"{line.rstrip()}\n" for line in lines), encoding="utf-8")


def prior(heard: Iterable) -> list[float]:
    """The logarithm of the mean probability of blank and each unit, of what `log_probabilities` finds."""
    import numpy as np

    return np.log(np.exp(np.concatenate([*heard])).mean(axis=0) + 1e-8).tolist()


def log_probabilities(cfg) -> dict[str, dict]:
    """For each split what the recognizer makes of each utterance, sorted by id: [T, 1 + units], float32."""
    from lightning_modules import checkpoint
    from lightning_modules.batch import Batcher
    from lightning_modules.fit import device, inference, place
    from local import archive

    directory, cmvn = source(cfg)
    path, features = Path(cfg.dirs.finetune) / "recognizer.pt", features_of(cfg.dirs.features)
    module, _ = checkpoint.load(path, features, plain(cfg, "recognizer"))
    module.to(device(cfg.trainer.accelerator))
    found = {}
    for split in cfg.decoder.splits:
        data = place(archive.read(directory / split, cmvn, held=False), cfg.trainer.accelerator)
        heard = {}
        with inference(module):
            for batch in Batcher(data, batch_frames=round(200 / data.frame_shift), seed=0).all():
                put_out, lengths = module(batch.features, batch.lengths)
                frames = zip(put_out.float().cpu().numpy(), lengths.tolist(), strict=True)
                heard |= {key: each[:size] for key, (each, size) in zip(batch.ids, frames, strict=True)}
        found[split] = dict(sorted(heard.items()))
    return found


def _references(cfg, split: str, ids: list[str]) -> list[str]:
    texts = {u.id: u.text for u in manifest.used(cfg, split)}
    return [fold(texts[key], plain(cfg, "units")["scoring"]) for key in ids]
