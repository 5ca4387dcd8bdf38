"""Stages A to B of one cell, in one process: `python -m local.run stage=A stop_stage=B [key=value ...]`.

With `-m` the same for every cell of a sweep (local/cells.py), each piece of shared work once.
"""

import logging
import multiprocessing
import os
import signal
import sys
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from local import cells, failure, ranks, ray, slurm, trials
from local.config import CONF, check_overrides
from local.errors import InputError, refusals_reported
from local.stage import cell_name, foresee, stage_named, stages_of

log = logging.getLogger(__name__)
LOG = Path("exp/log/run.log")  # as in conf/hydra/job_logging
# What goes to a worker is looked for in every loaded module, and old names of SpeechBrain's warn of themselves.
warnings.filterwarnings("ignore", message="Module 'speechbrain")
logging.raiseExceptions = False  # or each line that finds no room in the log comes out as a traceback
# Before torch is imported, here or in a worker: results do not depend on the number of cores, for work on a CPU is
# single-threaded and its processes run side by side.
os.environ["OMP_NUM_THREADS"] = "1"
cells.register()
ray.register()
trials.register()
slurm.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Run the stages; return the dev WER in percent once stage 7 is done, which is what an optimizer needs."""
    if multiprocessing.get_start_method() == "loky":  # in a process of joblib's, and unknown to those that it starts
        multiprocessing.set_start_method("forkserver", force=True)
    try:
        if ranks.idle(cfg):
            return None
        run_stages(cfg)
        return dev_wer(cfg)
    except (InputError, failure.Stopped) as error:
        if HydraConfig.get().mode == RunMode.RUN:
            print(error if isinstance(error, failure.Stopped) else f"error: {error}", file=sys.stderr)
            # A process of a training was killed; to a cluster's launcher that is as if this one had been.
            sys.exit(137 if isinstance(error.__context__, ChildProcessError) else 1)
        raise  # the sweep prints it, once all cells have ended
    except Exception:
        log.exception("[%s] failed", cell_name(cfg))
        raise


def run_stages(cfg: DictConfig) -> None:
    """Those that the configuration asks for, of one cell."""
    names = stages_of(cfg)
    if "finetune" in names and not cfg.dry_run:
        foresee(cfg, "decode" in names)
    for name in names:
        stage_named(name)(cfg)


def dev_wer(cfg: DictConfig) -> float | None:
    """The dev WER in percent, or None before stage 7."""
    path = Path(cfg.dirs.score) / "dev" / "wer"
    return float(path.read_text(encoding="utf-8").split()[1]) if path.exists() else None


def end(number: int, frame: object) -> None:
    """Die of a signal, and the workers too: joblib's would each go on with the training that they are at."""
    for worker in multiprocessing.active_children():
        worker.terminate()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


if __name__ == "__main__":
    from local.run import main  # by its importable name, so that workers find it

    try:
        check_overrides([a for a in sys.argv[1:] if a not in ("-m", "--multirun")])
        with refusals_reported(LOG):  # Hydra opens it, and would answer with a traceback
            LOG.parent.mkdir(parents=True, exist_ok=True)
            LOG.open("a").close()
    except InputError as error:
        sys.exit(f"error: {error}")
    if {"-m", "--multirun"} & set(sys.argv):
        sys.argv[1:] = cells.postponed(sys.argv[1:])
    signal.signal(signal.SIGTERM, end)
    try:
        main()
    except KeyboardInterrupt:
        print("error: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
