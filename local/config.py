"""Resolvers of the configuration tree, and the check of what a user typed.

`${sig:a,b.c}` is a digest of the settings a and b.c after interpolation, and of no others: it names the
directory of whatever those settings made. A `root` inside a signed group is left out, as all of PLACES, for it says
where the audio lies on this machine and not which audio it is.
"""

import copy
import difflib
import functools
import hashlib
import json
import os
import re
from pathlib import Path

import omegaconf.base
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import Container, DictConfig, OmegaConf, open_dict

from local.errors import InputError

PLACES = ("root", "download_to", "mirror")
NEEDED = {  # by settings that begin so
    "hydra.launcher.sbatch.": "hydra/launcher=slurm",
    "hydra.launcher.ray.": "hydra/launcher=ray",
    "sweep.": "sweep=optuna",
    "halving.": "sweep=optuna",
}
CONF = Path(__file__).resolve().parent.parent / "conf"


def plain(cfg: DictConfig, key: str):
    """The settings at `key` as plain containers, without those of PLACES.

    A setting that is null is none: one that is added later, and off where nobody asks for it, changes no name.
    """
    node = OmegaConf.select(cfg, key)
    if not isinstance(node, Container):
        return node
    keys = [k for k in node if k not in PLACES] if isinstance(node, DictConfig) else range(len(node))
    values = {k: node[k] for k in keys}
    return {
        k: OmegaConf.to_container(v, resolve=True) if isinstance(v, Container) else v
        for k, v in values.items()
        if v is not None
    }


def signature(cfg: DictConfig, *keys: str) -> str:
    """Eight hex digits over the settings at `keys`; `a@b` are those at `b` in the place of `a`'s."""
    places = (key.partition("@") for key in keys)
    return digest_of({key: plain(cfg, place or key) for key, _, place in places})


def digest_of(values: dict) -> str:
    """Eight hex digits over plain values."""
    return hashlib.sha256(json.dumps(_canonical(values), sort_keys=True).encode()).hexdigest()[:8]


def _canonical(value):
    """The same value whether a user typed 0 or 0.0."""
    if isinstance(value, dict):
        return {key: _canonical(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def signed_keys(cfg: DictConfig, directory: str) -> list[str]:
    """The settings that `dirs.<directory>` itself signs, read off the YAML."""
    raw = OmegaConf.to_container(cfg.get("templates", cfg.dirs), resolve=False).get(directory) or ""
    return [key for group in re.findall(r"\$\{sig:([^}]*)\}", raw) for key in group.split(",")]


def named(cfg: DictConfig) -> DictConfig:
    """`cfg` itself with its directories' names worked out, which must not be changed in what they follow from after.

    It costs milliseconds to work a name out, and they are looked at again and again. `unnamed` takes it back.
    """
    if "templates" not in cfg:
        with open_dict(cfg):
            cfg.templates = copy.deepcopy(cfg.dirs)
        for key in cfg.dirs:  # each of those before it
            cfg.dirs[key] = cfg.dirs[key]
    return cfg


def unnamed(cfg: DictConfig) -> DictConfig:
    """`cfg` itself with directories that follow again."""
    if "templates" in cfg:
        cfg.dirs = cfg.templates
        with open_dict(cfg):
            del cfg.templates
    return cfg


def make(settings, **more):
    """Instantiate `settings` with plain containers; raises InputError if its constructor does, or cannot take them."""
    try:
        return instantiate(settings, **more, _convert_="all", _recursive_=False)
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, TypeError | ValueError):  # as of a setting that is null, and must not be
            target = settings["_target_"].rpartition(".")[2]
            raise InputError(f"{target}: {error.__cause__}; look at what is set of it") from None
        raise


def make_of(package: str, settings: dict, **more):
    """As `make`, of settings out of a file; raises InputError unless they name a class that `package` defines."""
    target = str(settings.get("_target_"))
    try:  # a prefix is not enough: a module also has what it imports
        ours = target.startswith(f"{package}.") and f"{get_class(target).__module__}.".startswith(f"{package}.")
    except Exception:  # hydra raises many kinds for what is no class, or is not there
        ours = False
    if not ours:
        raise InputError(f"{target}: no class of {package}; such settings are not used")
    return make(settings, **more)


OmegaConf.register_new_resolver("sig", lambda *keys, _root_: signature(_root_, *keys), replace=True)
omegaconf.base.parse = functools.cache(omegaconf.base.parse)  # an interpolation is else parsed each time it is read
OmegaConf.register_new_resolver("cpus", lambda: len(os.sched_getaffinity(0)), replace=True)


def _known_keys() -> tuple[dict[str, object], dict[str, list[str]]]:
    """Every dotted key that some file of conf/ sets, with a value of it, and the options of each group."""
    keys: dict[str, object] = {}
    groups: dict[str, list[str]] = {}

    def walk(prefix: str, node) -> None:
        word = isinstance(keys.get(prefix), str)  # what one file sets to a word, as hours to all, is no number
        value = None if isinstance(node, str) and "${" in node else node  # of what kind, another setting says
        if prefix and not word and (value is not None or prefix not in keys):
            keys[prefix] = value
        if isinstance(node, dict):
            for key, value in node.items():
                if key != "defaults":
                    walk(f"{prefix}.{key}" if prefix else str(key), value)

    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) or {}
        walk("" if "@package _global_" in text or group == "." else group.replace("/", "."), content)
        if group in ("encoder", "augmentation"):  # placed inside its users by their defaults lists
            for user in ("autoencoder", "recognizer"):
                walk(f"{user}.{group}", content)
        if group != ".":
            groups.setdefault(group, []).append(path.stem)
    return keys, groups


def check_whole(setting: str, value: object, least: int = 1) -> None:
    """Raise InputError unless a setting is a whole number, `least` or more."""
    if type(value) is not int or value < least:
        raise InputError(f"{setting}={value}: expected a whole number, {least} or more")


def check_positive(setting: str, value: object, example: int) -> None:
    """Raise InputError unless a setting is a number above 0."""
    if not isinstance(value, int | float) or value <= 0:
        raise InputError(f"{setting}={value}: expected a number above 0, such as {example}")


def check_overrides(overrides: list[str]) -> None:
    """Raise InputError, naming the nearest valid one, for the first unknown key or option among `key=value`s."""
    keys, groups = _known_keys()
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals and not key.startswith("~"):
            raise InputError(f"{override!r} is no setting; expected key=value, see --help")
        try:
            OverridesParser.create().parse_override(override)
        except HydraException as error:
            raise InputError(f"{override!r} cannot be read: {str(error).splitlines()[0]}") from None
        for start, needed in NEEDED.items():
            if key.startswith(start) and needed not in overrides:
                raise InputError(f"{key} has a meaning with {needed} only; add that")
        if override == "hydra/launcher=submitit_slurm":
            raise InputError(f"{override}: its jobs are lost with the driver; use hydra/launcher=slurm")
        if key == "hydra/launcher":
            Plugins.instance()  # which is how the installed ones come into the store
            there = [*groups[key], *(name.removesuffix(".yaml") for name in ConfigStore.instance().list(key))]
            if value not in there:
                more = "submitit_local comes with: pip install hydra-submitit-launcher==1.2.0"
                raise InputError(f"unknown {key} {value!r}; there are: {', '.join(there)}; {more}")
        if key.startswith(("+", "~", "hydra")) and not key.startswith((*NEEDED,)):
            continue
        key = key.partition("@")[0]  # encoder@recognizer.encoder is an option of encoder
        if key not in keys and key not in groups:
            near = difflib.get_close_matches(key, sorted(keys.keys() | groups.keys()), 1, 0)[0]
            raise InputError(f"unknown setting {key!r}; the nearest is {near!r}")
        group = key.rpartition(".")[2]
        placed = isinstance(keys.get(key), dict) and key not in groups and group in groups  # as an encoder in its user
        if placed and not re.match(r"\{|\$\{|\w+\(", value):
            options = ", ".join(f"{group}@{key}={option}" for option in groups[group])
            raise InputError(f"{override}: no word can be set there; expected settings within it, or {options}")
        for option in value.split(",") if key in groups and "(" not in value else []:
            if option not in groups[key]:
                near = difflib.get_close_matches(option, groups[key], 1, 0)[0]
                raise InputError(
                    f"unknown {key} {option!r}; the nearest is {near!r} (there are: {', '.join(groups[key])})"
                )
        if isinstance(keys.get(key), list) and not re.match(r"\[|null$|\$\{|\w+\(", value):
            raise InputError(f"{key}={value}: expected a list, as [{value}]")
        for one in value.split(",") if isinstance(keys.get(key), bool) else []:
            if not re.fullmatch(r"true|false|null|\$\{.*\}|.*[()].*", one.strip().lower()):
                raise InputError(f"{key}={one}: expected true or false")
        number = isinstance(keys.get(key), int | float) and not isinstance(keys.get(key), bool)
        for one in value.split(",") if number else []:
            if not re.fullmatch(r"[-+.\deE]+|null|\$\{.*\}|.*[()].*", one.strip()):
                raise InputError(f"{key}={one}: expected a number, such as {keys[key]}")
