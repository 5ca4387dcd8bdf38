"""Stage 4: the bottleneck features of every split, as an archive like that of stage 2; or features from elsewhere.

Beside them what they hold on dev, `quality.json` and `reconstruction.png`.
"""

import json
from pathlib import Path

from local import audit
from local.config import plain
from local.external import External, check_scp
from local.frontend import autoencoder_path, features_of
from local.stage import stage


def _check(cfg) -> None:
    audit.check_unlabeled(cfg)  # what is pretrained for one corpus may serve another
    if cfg.dirs.pretrain is None:
        check_scp(cfg.autoencoder.scp)


@stage(writes="bottleneck", reads=("pretrain", "features"), check=_check)
def run(cfg, partial) -> list[str]:
    features = Path(cfg.dirs.features)
    splits = sorted(path.parent.name for path in features.glob("*/feats.scp"))
    final = Path(cfg.dirs.bottleneck)
    module, read = None, []
    if cfg.dirs.pretrain:
        module = _encode(cfg, splits, features, partial, final)
    else:
        read = _copy(cfg, splits, features, partial, final)
    _measure(cfg, module, partial, final)
    return read


def _encode(cfg, splits: list[str], features: Path, partial: Path, final: Path):
    """What the pretrained encoder makes of the features; returns the autoencoder, on its device."""
    from lightning_modules import checkpoint
    from lightning_modules.batch import Batcher
    from lightning_modules.fit import device, inference, place
    from local import archive

    module, _ = checkpoint.load(autoencoder_path(cfg), features_of(features), plain(cfg, "autoencoder"))
    module.to(device(cfg.trainer.accelerator))
    for split in splits:
        data = place(archive.read(features / split, cfg.features.cmvn, held=False), cfg.trainer.accelerator)
        batches = Batcher(data, batch_frames=round(200 / data.frame_shift), seed=0).all
        with archive.Writer(partial / split, final / split, 0) as writer, inference(module):
            speakers = dict(zip(data.ids, data.speakers, strict=True))
            for batch in batches():
                codes, lengths = module.encode(batch.features, batch.lengths)
                for key, code, length in zip(batch.ids, codes.float().cpu().numpy(), lengths.tolist(), strict=True):
                    writer.write(key, code[:length], speakers[key])
        archive.join(partial / split, data.frame_shift * module.stride)
    return module


def _copy(cfg, splits: list[str], features: Path, partial: Path, final: Path) -> list[str]:
    """What another toolkit extracted; all that is wrong with it comes as one InputError."""
    from local import archive
    from local.manifest import read_table

    own = archive.frame_shift(features / splits[0])
    external = External(cfg.autoencoder.scp, cfg.autoencoder.frame_shift, own)
    for split in splits:
        counts, speakers = (read_table(features / split / name) for name in ("utt2num_frames", "utt2spk"))
        durations = {key: int(count) * own for key, count in counts.items()}
        with archive.Writer(partial / split, final / split, 0) as writer:
            for key, frames in external.rows(split, durations):
                writer.write(key, frames, speakers[key])
        archive.join(partial / split, external.frame_shift)
    external.complete()
    return sorted(external.files)


def _measure(cfg, module, partial: Path, final: Path) -> None:
    """Write quality.json, and for an autoencoder reconstruction.png, from bounded samples of dev and train."""
    from lightning_modules.fit import place
    from lightning_modules.reconstruction import errors, excerpts
    from local import archive, quality, spectrograms
    from local.ark import Reader
    from local.manifest import read_table
    from local.marker import read_json

    def codes(split: str) -> list:
        reader = Reader(partial / split / "feats.scp")  # which names them where they will be
        reader.places = {key: at.replace(str(final), str(partial), 1) for key, at in reader.places.items()}
        return [reader[key] for key in data[split].ids]

    def frames(split: str) -> list:
        return [each.numpy() for each in data[split].frames.split(data[split].lengths.tolist())]

    counts = {"dev": quality.MEASURED, "train": quality.PROBED}
    ids = {split: quality.sample(read_table(partial / split / "utt2spk"), count) for split, count in counts.items()}
    data = {split: archive.read(Path(cfg.dirs.features) / split, cfg.features.cmvn, ids[split]) for split in ids}
    speakers = data["train"].speakers
    spans = {split: _spans(cfg, split, ids[split]) for split in ids}
    shift, own = archive.frame_shift(partial / "dev"), data["dev"].frame_shift
    found = quality.measures(codes("dev"), codes("train"), speakers, spans, shift)
    found["features"] = quality.measures(frames("dev"), frames("train"), speakers, spans, own)
    if module is not None:
        if perplexity := (read_json(Path(cfg.dirs.pretrain) / "summary.json") or {}).get("val_perplexity"):
            found["perplexity"] = perplexity
        dev = place(data["dev"], cfg.trainer.accelerator)
        found |= errors(module, dev)
        shown = excerpts(module, dev.select(sorted({0, len(dev.ids) // 2})))  # of two speakers, if there are
        samples = cfg.features.name == "waveform" and next(iter(shown.values()))[0].shape[1] == dev.width
        spectrograms.plot(shown, dev.frame_shift, partial / "reconstruction.png", samples=samples)
    # Further digits of sums depend on the number of threads.
    found = json.loads(json.dumps(found), parse_float=lambda digits: float(f"{float(digits):.6g}"))
    (partial / "quality.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _spans(cfg, split: str, ids: list[str]) -> list[list[tuple[float, float, str]]]:
    """Of each utterance begin and duration in seconds of its phones, as these are scored; empty without their times."""
    from local.manifest import read_phones
    from local.text import fold

    known, scoring = read_phones(Path(cfg.dirs.data) / split), dict(cfg.units.scoring)
    return [[(begin, duration, fold(phone, scoring)) for begin, duration, phone in known.get(key, ())] for key in ids]
