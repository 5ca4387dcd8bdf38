"""Trainings that several processes share, one a device: `trainer.devices` on each of `trainer.num_nodes` nodes.

The process of a stage starts them, inside a SLURM job by `srun`, and waits; as soon as one has failed it ends all. Each
runs the body of the stage, `cfg.trainer.rank` being its number, and number 0 alone writes. They read what to do
from stdin, which stays open: its end says that the process that started them is gone.
"""

import errno
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from local.config import check_positive, check_whole
from local.errors import InputError
from local.stage import cell_name, stage_named

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parent.parent
GRACE = 1.0  # seconds in which the others may say what they, too, died of


def count(cfg: DictConfig) -> int:
    """How many processes share a training."""
    for key in ("devices", "num_nodes"):
        check_whole(f"trainer.{key}", cfg.trainer[key])
    return cfg.trainer.devices * cfg.trainer.num_nodes


def check(cfg: DictConfig) -> None:
    """Raise InputError unless a training can have the devices that it asks for, as far as this machine shows."""
    check_positive("trainer.checkpoint_minutes", cfg.trainer.checkpoint_minutes, 10)
    if count(cfg) == 1:
        return
    asked = f"trainer.devices={cfg.trainer.devices} num_nodes={cfg.trainer.num_nodes}"
    if cfg.trainer.auto_batch:
        raise InputError(f"{asked} auto_batch=true: parts are for one device alone; set one of them back")
    if cfg.halving:
        raise InputError(f"{asked} with halving: a trial is judged in one process; set one of them back")
    if cfg.dry_run:  # of jobs for other machines, perhaps
        return
    if cfg.trainer.num_nodes > 1 and not _in_slurm():
        raise InputError(f"{asked}: several nodes, but this is no SLURM job; run it as one, or set num_nodes=1")
    if cfg.trainer.accelerator != "cpu":
        import torch

        if (found := torch.cuda.device_count()) < cfg.trainer.devices:
            raise InputError(
                f"{asked}: {socket.gethostname()} has {found} GPUs for this process; ask for no more, or set "
                "trainer.accelerator=cpu"
            )


def idle(cfg: DictConfig) -> bool:
    """Whether this is one of several tasks of an srun of the user's, of which the first does everything."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    return tasks == count(cfg) > 1 and os.environ.get("SLURM_PROCID", "0") != "0"


def tasks(cfg: DictConfig) -> list[str]:
    """What sbatch or srun is to be asked for."""
    return [f"--nodes={cfg.trainer.num_nodes}", f"--ntasks-per-node={cfg.trainer.devices}"] if count(cfg) > 1 else []


def shared(name: str) -> Callable:
    """Make the body of stage `name`, which trains, run in as many processes as are asked for."""

    def decorate(body: Callable) -> Callable:
        @wraps(body)
        def run(cfg: DictConfig, partial: Path) -> None:
            if count(cfg) == 1 or "rank" in cfg.trainer:
                body(cfg, partial)
            else:
                _launch(cfg, partial, name)

        return run

    return decorate


def _in_slurm() -> bool:
    return "SLURM_JOB_ID" in os.environ and shutil.which("srun") is not None


def _launch(cfg: DictConfig, partial: Path, name: str) -> None:
    """Run a stage in several processes."""
    log.info("[%s] %s: in %d processes", cell_name(cfg), name, count(cfg))
    logs = HydraConfig.get().job_logging if HydraConfig.initialized() else None
    order = {
        "stage": name, "partial": str(partial), "cfg": OmegaConf.to_yaml(cfg, resolve=True),
        "logging": OmegaConf.to_container(logs, resolve=True) if logs else None, "srun": _in_slurm(),
    }  # fmt: skip
    with tempfile.TemporaryFile() as said:
        processes = _start(cfg, said.fileno(), json.dumps(order).encode() + b"\n")
        try:
            statuses = _wait(processes, said.fileno())
        finally:
            for process in processes:
                process.stdin.close()  # upon which they end, on other nodes too
            for process in processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
                process.kill()
                process.wait()
        text = _read(said.fileno()).decode(errors="replace")
    _check_outcome(statuses, text, tasks(cfg))


def _start(cfg: DictConfig, said: int, order: bytes) -> list[subprocess.Popen]:
    """The processes, or the one srun that starts them; what they write to stderr goes to a file."""
    command = [sys.executable, "-m", "local.ranks"]
    with socket.create_server(("", 0)) as free:
        port = str(free.getsockname()[1])
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    common = os.environ | {"PYTHONPATH": path, "MASTER_PORT": port, "WORLD_SIZE": str(count(cfg))}
    if _in_slurm():
        # Its tasks may use all that the job has; how many they are, no variable of the job's is to say.
        srun = ["srun", *tasks(cfg), f"--ntasks={count(cfg)}", "--overlap", "--cpu-bind=none", "--kill-on-bad-exit=1"]
        each = [([*srun, *command], common)]
    else:
        place = {"MASTER_ADDR": "127.0.0.1"}
        each = [(command, common | place | {"RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(count(cfg))]
    processes = [subprocess.Popen(line, env=env, stdin=subprocess.PIPE, stderr=said) for line, env in each]
    for process in processes:
        try:
            process.stdin.write(order)
            process.stdin.flush()
        except BrokenPipeError:  # its status will say more
            process.stdin = open(os.devnull, "wb")  # noqa: SIM115
    return processes


def _read(said: int) -> bytes:
    """All that was written to a file, at whose end others go on writing."""
    return os.pread(said, os.fstat(said).st_size, 0)


def _wait(processes: list[subprocess.Popen], said: int) -> list[int | None]:
    """The statuses of processes that have all succeeded, or of which some have failed."""
    while any(process.poll() is None for process in processes):
        if any(process.returncode for process in processes) or b"\nsrun: error: " in b"\n" + _read(said):
            time.sleep(GRACE)
            break
        time.sleep(0.1)
    return [process.poll() for process in processes]


def _check_outcome(statuses: list[int | None], text: str, asked: list[str]) -> None:
    """Unless all have succeeded, raise an exception that says of what the first to fail died."""
    told, rest = [], []
    for line in text.splitlines():
        (told if line.startswith('{"told"') else rest).append(line)
    told = [json.loads(line)["told"] for line in told]
    if not any(statuses) and None not in statuses:
        return
    for one in told:
        if "input" in one:
            raise InputError(one["input"])
        if "refused" in one:
            raise OSError(*one["refused"])
    signals = [(i, signal.Signals(-status).name) for i, status in enumerate(statuses) if status and status < 0]
    killed = [f"process {i} of {len(statuses)}, by {name}" for i, name in signals]
    follows = "Exited with exit code|Terminated"  # upon the death of another
    srun = [line for line in rest if line.startswith("srun: error: ") and not re.search(follows, line)]
    if srun and not told and "task" not in srun[0]:  # it could start none
        raise OSError(0, f"{srun[0]} (asked for {' '.join(asked)})")
    killed = killed or srun
    if not killed:
        log.error("%s", "\n".join(rest))
        killed = [one["failed"] for one in told if "failed" in one]
    # An OSError, for then a stage keeps the checkpoints.
    raise ChildProcessError(errno.ECHILD, f"a process of the training has died ({(killed or ['see above'])[0]})")


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> int:
    """Be one of the processes, and tell the one that waits what came of it."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cfg = OmegaConf.create(order["cfg"])
    try:
        cfg.trainer.rank = _take_place(cfg, order["srun"])
        if cfg.trainer.rank == 0 and order["logging"]:
            configure_log(OmegaConf.create(order["logging"]))
        stage_named(order["stage"]).body(cfg, Path(order["partial"]))
        return 0
    except InputError as error:
        told = {"input": str(error)}
    except OSError as error:
        told = {"refused": [error.errno, error.strerror or str(error), error.filename]}
    except Exception as error:
        traceback.print_exc()
        told = {"failed": f"{type(error).__name__}: {error}".partition("\n")[0]}
    print(json.dumps({"told": told}), file=sys.stderr, flush=True)
    return 1


def _take_place(cfg: DictConfig, srun: bool) -> int:
    """Number and device of this process, put into the environment as torch's own launcher does."""
    if srun:
        names = {"RANK": "PROCID", "LOCAL_RANK": "LOCALID", "GROUP_RANK": "NODEID"}
        os.environ.update({ours: os.environ[f"SLURM_{theirs}"] for ours, theirs in names.items()})
        from lightning_fabric.plugins.environments import SLURMEnvironment

        nodes = os.environ["SLURM_STEP_NODELIST"]
        os.environ["MASTER_ADDR"] = SLURMEnvironment.resolve_root_node_address(nodes)
    if cfg.trainer.accelerator != "cpu":
        import torch

        check(cfg)  # of this node
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return int(os.environ["RANK"])


if __name__ == "__main__":
    from local.ranks import main  # by its importable name

    sys.exit(main())
