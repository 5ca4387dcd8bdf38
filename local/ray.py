"""Sweeps on a Ray cluster, `hydra/launcher=ray`: each cell is a task of its own.

Ray itself runs a task again whose node was lost; the cell's stages then go on from what is on disk. Unlike Hydra's own
plugin, whose settings this one takes, a task runs in the folder of the driver and not in that in which the cluster was
started, and a task that is lost for good does not end the others.
"""

import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from local.errors import InputError
from local.stage import cell_name

log = logging.getLogger(__name__)


class Ray(Launcher):
    """See the module; its settings stand in conf/hydra/launcher/ray.yaml."""

    __module__ = "hydra_plugins.ray"  # the only package from which Hydra takes a launcher

    def __init__(self, ray: DictConfig) -> None:
        self.settings = ray

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run each cell as a task, and wait for all."""
        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)
        ray = _connected(OmegaConf.to_container(self.settings.init, resolve=True))
        asked = OmegaConf.to_container(self.settings.remote, resolve=True)
        _fits(asked, [node["Resources"] for node in ray.nodes() if node["Alive"]], self.settings.init.address)
        remote = ray.remote(**asked)(_run)
        tasks = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(cfg):
                cfg.hydra.job.id = cfg.hydra.job.num = number
            # The function comes first: what it imports is what the state is made of.
            task = remote.options(name=cell_name(cfg)).remote(
                self.task_function, self.hydra_context, cfg, Singleton.get_state(), Path.cwd()
            )
            tasks.append((task, cfg, list(overrides)))
        return [self._returned(*task) for task in tasks]

    def _returned(self, task, cfg: DictConfig, overrides: list[str]) -> JobReturn:
        import ray

        try:
            return ray.get(task)
        except ray.exceptions.RayError as error:
            cure = "run the same command again, which continues, or raise hydra.launcher.ray.remote.max_retries"
            why = f"[{cell_name(cfg)}] lost: {_first_sentence(error)}; {cure}"
            return JobReturn(overrides, cfg, status=JobStatus.FAILED, _return_value=InputError(why))


def _connected(init: dict):
    """The module `ray`, once there is a cluster: that of `init.address`, or one on this machine."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # lines of two cells that differ in numbers only are two lines
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(f"hydra/launcher=ray: {error}; pip install 'ray[default]==2.60.0', on all nodes") from None
    if ray.is_initialized():  # by an earlier phase of the sweep
        return ray
    _reachable(init.get("address") or "")
    try:
        ray.init(**{"logging_level": logging.WARNING, **init})
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"hydra.launcher.ray.init: {_first_sentence(error)}; see `ray status`") from None
    return ray


def _fits(asked: dict, nodes: list[dict], address: str | None) -> None:
    """Raise InputError if no node can ever run a task; warn where a cluster that is not ours may still grow."""
    for key, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        most = max((node.get(resource, 0) for node in nodes), default=0)
        if (asked.get(key) or 0) > most:
            why = f"hydra.launcher.ray.remote.{key}={asked[key]}: no node has more than {most:g}; ask for no more"
            if not address:
                raise InputError(why)
            log.warning("%s, or add a node, for which this waits", why)


def _reachable(address: str) -> None:
    """Raise InputError if nothing answers at HOST:PORT, for which Ray itself would wait for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in address:
        return
    try:
        socket.create_connection((host, int(port)), 10).close()
    except OSError as error:
        what = f"hydra.launcher.ray.init.address={address}: {error.strerror or error}"
        raise InputError(f"{what}; start a cluster with `ray start --head`, which prints its address") from None


def _run(task: Callable, context: HydraContext, cfg: DictConfig, state: dict, folder: Path) -> JobReturn:
    """One cell, on some node."""
    os.chdir(folder)
    setup_globals()
    Singleton.set_state(state)
    HydraConfig.instance().set_config(cfg)
    with read_write(cfg.hydra):  # nodes that append to one file mix their lines
        cfg.hydra.job_logging.handlers.file.filename = f"exp/log/run-{socket.gethostname()}.log"
    return run_job(task, cfg, "hydra.sweep.dir", "hydra.sweep.subdir", hydra_context=context)


def _first_sentence(error: Exception) -> str:
    return re.split(r"\.?(?:\s*\n|\. |$)", str(error).strip())[0]


def register() -> None:
    """Make the launcher known to Hydra, here and in the workers that unpickle Hydra's state."""
    sys.modules[Ray.__module__] = sys.modules[__name__]
    Plugins.instance().register(Ray)
    # Of the plugin, where it is installed: Hydra would take it for the schema of ours, and warn at each composition.
    ConfigStore.instance().repo.get("hydra", {}).get("launcher", {}).pop("ray.yaml", None)
