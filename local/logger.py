"""Where a run is logged: Weights & Biases, offline unless asked otherwise, or a CSV file."""

import json
import logging
import netrc
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from omegaconf import DictConfig, OmegaConf

from local.errors import InputError
from local.failure import Stopped
from local.marker import commit, read_marker, write_atomically

log = logging.getLogger(__name__)
MODES = ("offline", "online", "disabled")
PATIENCE = 20.0  # seconds for a server to answer
# Unit, and which value of a training stands for it, of each metric that a training logs.
METRICS = {
    "loss": ("the objective's, mean since the last validation", "last"),
    "learning_rate": ("1", "last"),
    "val_loss": ("the objective's, mean on dev", "min"),
    "val_wer": ("% of the words of dev", "min"),
    "val_cer": ("% of the characters of dev", "min"),
    "val_cluster_accuracy": ("share of hidden groups of frames", "max"),
    "val_kl": ("nats a code", "last"),
    "val_perplexity": ("codes", "last"),
    "health/blank_rate": ("share of frames", "last"),
    "health/empty_rate": ("share of hypotheses", "last"),
    "health/first_emission": ("updates", "last"),
    "health/dropped": ("utterances", "last"),
}
REFERRED = (  # checkpoints, and archives, whose name is that of their directory
    ("pretrain", "autoencoder.pt"),
    ("finetune", "recognizer.pt"),
    ("features", ""),
    ("bottleneck", ""),
)


@contextmanager
def opened(cfg: DictConfig, out: Path, job: str) -> Iterator:
    """A Lightning logger that writes below `out`, for one training or report; None in a process that does not write."""
    if cfg.trainer.get("rank"):
        yield None
        return
    if cfg.logger.name == "csv":
        from pytorch_lightning.loggers import CSVLogger

        logger = CSVLogger(out, name="", version="csv")
        yield logger
        logger.save()
        return
    try:
        import wandb
        from pytorch_lightning.loggers import WandbLogger
    except ImportError as error:
        raise InputError(f"wandb cannot be imported ({error}); install it, or use logger=csv") from None
    settings = {"console": "off", "x_disable_stats": True, "silent": True}
    settings["x_disable_meta"] = True  # the command line and git's remote, in which a password may stand
    settings["x_transaction_log_flush_interval"] = 1.0  # seconds of which a kill leaves nothing
    run = _begun(
        cfg, wandb, settings, project=cfg.logger.project, dir=str(out.resolve()), id=_run_id(out), resume="allow",
        job_type=job, group="report" if job == "report" else cfg.arm.name,
        name=job if job == "report" else f"{job} {cfg.arm.name} {cfg.seed}",
        tags=_tags(cfg, job), config=_config(cfg),
    )  # fmt: skip
    run.define_metric("trainer/global_step")  # Lightning's name
    run.define_metric("*", step_metric="trainer/global_step")
    for name, (_, summary) in METRICS.items():
        run.define_metric(name, step_metric="trainer/global_step", summary=summary)
    finished = False
    try:
        yield WandbLogger(experiment=run)
        finished = True
    except Stopped:  # as its search wanted it
        finished = True
        raise
    finally:
        run.finish(exit_code=0 if finished else 1)  # or the next training of this process would log into it


def check(cfg: DictConfig) -> None:
    """Raise InputError for a mode that W&B does not have, or that wants a key where there is none."""
    if cfg.logger.name == "csv":
        return
    if (mode := _mode(cfg)) not in MODES:
        raise InputError(f"logger.mode={mode}: expected one of {', '.join(MODES)} (WANDB_MODE overrides it)")
    if mode == "online" and not has_key():
        raise InputError(
            "logger.mode=online, but there is no key; set WANDB_API_KEY, `wandb login`, or leave it offline"
        )


def _mode(cfg: DictConfig) -> str:
    return os.environ.get("WANDB_MODE") or cfg.logger.mode


def _begun(cfg: DictConfig, wandb, settings: dict, **more):
    """A W&B run; offline unless that was asked for, and where no server answers."""
    mode = _mode(cfg)
    if mode == "online" and (why := unready()):
        log.warning("W&B: %s; this run is kept offline, local/sync_wandb.sh uploads it", why.partition(";")[0])
        mode = "offline"
    try:
        return wandb.init(settings=wandb.Settings(mode=mode, init_timeout=PATIENCE, **settings), **more)
    except wandb.errors.Error as error:
        raise InputError(f"W&B: {str(error).partition(chr(10))[0]}; logger.mode=offline needs no server") from None


def _tags(cfg: DictConfig, job: str) -> list[str]:
    """What runs are filtered by, beside group and job type; a pretraining serves all budgets of labels."""
    tags = [cfg.corpus.name] + [f"seed-{cfg.seed}"] * (job != "report")
    return tags + [cfg.labels.name, f"hours-{cfg.labels.hours}"] * (job == "finetune")


def _config(cfg: DictConfig) -> dict:
    """The settings, the unit of each metric and the commit; no password of a URL."""
    text = json.dumps(OmegaConf.to_container(cfg, resolve=True))
    units = {name: unit for name, (unit, _) in METRICS.items()}
    return json.loads(re.sub(r"(://)[^/@\s\"]+@", r"\1", text)) | {"metric_units": units, "commit": commit()}


def _run_id(out: Path) -> str:
    """W&B's run id, drawn once and kept beside the checkpoint, so that a resumed training continues its run."""
    path = out / "wandb_id"
    if not path.exists():
        write_atomically(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8")


def has_key() -> bool:
    """Whether a W&B key is set up, without asking for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        return urlsplit(_server()).netloc in netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def unready() -> str:
    """Why nothing can be uploaded at this moment, and what to do; nothing if it can."""
    if not has_key():
        return "no W&B key; set WANDB_API_KEY, or: wandb login"
    try:
        urlopen(_server(), timeout=PATIENCE).close()
    except HTTPError:
        return ""  # which is an answer
    except OSError as error:
        return (
            f"{_server()}: {getattr(error, 'reason', error)}; run it where that server (WANDB_BASE_URL) can be reached"
        )
    return ""


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def log_report(cfg: DictConfig, out: Path, entries: list[dict], cells: list[dict]) -> None:
    """What the report in `out` says, as a W&B run: tables and pictures, no audio or text; nothing for other loggers.

    With `logger.artifacts`, also where the checkpoints and archives of its cells lie.
    """
    if cfg.logger.name != "wandb":
        return
    import wandb

    keys = ("arm", "frontend", "signature", "wer", "cer", "parameters", "updates", "device_seconds")
    rows = [
        [e["label_hours"], e["split"], e["decoder"], len(a["seeds"]), *(a[key] for key in keys), *a["ci"]]
        for e in entries
        for a in e["arms"]
    ]
    table = wandb.Table(["label_hours", "split", "decoder", "seeds", *keys, "low", "high"], rows)
    rows = [
        [e["label_hours"], a["arm"], a["signature"], key, value]
        for e in entries
        for a in e["arms"]
        for key, value in a.get("quality", {}).items()
        if isinstance(value, float)
    ]
    held = wandb.Table(["label_hours", "arm", "signature", "measure", "value"], rows)
    keys = ("arm", "signature", "baseline", "baseline_signature", "delta", "relative", "detectable", "p", "p_holm")
    rows = [
        [e["label_hours"], e["split"], e["decoder"], *(c[key] for key in keys), *c["ci"]]
        for e in entries
        for c in e["comparisons"]
    ]
    differences = wandb.Table(["label_hours", "split", "decoder", *keys, "low", "high"], rows)
    pictures = {path.stem: wandb.Image(str(path)) for path in sorted(out.glob("*.png"))}
    with opened(cfg, out, "report") as logger:
        logger.experiment.log({"comparison": table, "differences": differences, "bottleneck": held, **pictures})
        for key, name in REFERRED if cfg.logger.artifacts else ():
            for directory in sorted({cell["dirs"][key] for cell in cells if cell["dirs"][key]}):
                _refer(wandb, logger.experiment, Path(directory), name)


def _refer(wandb, run, directory: Path, name: str) -> None:
    """An artifact that says where checkpoint `name` of a directory lies, or if it is empty the archive that it is."""
    called = re.sub(r"[^A-Za-z0-9_.-]", "-", str(directory))
    marker = read_marker(directory) or {}
    kept = {key: marker.get(key) for key in ("content", "commit")}
    artifact = wandb.Artifact(called, "checkpoint" if name else "archive", metadata=kept)
    artifact.add_reference((directory / name).resolve().as_uri(), checksum=False)
    run.log_artifact(artifact)
