"""Where a run is logged: Weights & Biases, offline where there is no key, or a CSV file."""

import netrc
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from local.errors import InputError


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
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    run = wandb.init(
        project=cfg.logger.project, dir=str(out), id=_run_id(out), resume="allow", job_type=job,
        group="report" if job == "report" else cfg.arm.name,
        name=job if job == "report" else f"{job} {cfg.arm.name} {cfg.seed}",
        tags=[cfg.corpus.name] if job == "report" else [cfg.corpus.name, cfg.labels.name, f"seed-{cfg.seed}"],
        config=OmegaConf.to_container(cfg, resolve=True),
        settings=wandb.Settings(mode=mode, console="off", x_disable_stats=True, silent=True),
    )  # fmt: skip
    run.define_metric("*", step_metric="trainer/global_step")
    finished = False
    try:
        yield WandbLogger(experiment=run)
        finished = True
    finally:
        run.finish(exit_code=0 if finished else 1)  # or the next training of this process would log into it


def _run_id(out: Path) -> str:
    """W&B's run id, drawn once and kept beside the checkpoint, so that a resumed training continues its run."""
    path = out / "wandb_id"
    if not path.exists():
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _has_key() -> bool:
    """Whether a W&B key is set up, without asking for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def log_report(cfg: DictConfig, out: Path, entries: list[dict]) -> None:
    """What the report in `out` says, as a W&B run: tables and pictures, no audio or text; nothing for other loggers."""
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
