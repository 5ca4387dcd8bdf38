"""The configuration of each cell of a sweep.

Hydra composes one for each choice of config groups, which takes it 0.1 s and more. The other overrides of a cell are
values, and Hydra's own function sets them on a copy.
"""

import copy
import functools
from collections.abc import Sequence
from contextlib import suppress

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from local.errors import InputError

AUTOENCODER = ("autoencoder.", "encoder@autoencoder.")  # how a setting begins that an arm without one lacks


class Composition:
    """Configurations of a sweep by their overrides; `config` is the sweep's own."""

    def __init__(self, loader: ConfigLoaderImpl, config: DictConfig) -> None:
        self.loader, self.config = loader, config
        self.parser = OverridesParser.create(config_loader=loader)
        self._parsed = functools.cache(self._parse)
        self._of_groups = functools.cache(self._compose)

    def reduced(self, overrides: list[str]) -> tuple[list[str], DictConfig]:
        """A cell's overrides without the settings of an autoencoder that its arm lacks, and its configuration."""
        with suppress(ConfigCompositionException):
            return overrides, self.compose(overrides)
        kept = [o for o in overrides if not o.startswith(AUTOENCODER)]
        for override in [o for o in overrides if o not in kept]:
            with suppress(ConfigCompositionException):
                self.compose([*kept, override])
                kept.append(override)
        try:
            return kept, self.compose(kept)
        except ConfigCompositionException as error:
            names = " ".join(o for o in kept if "." not in o.partition("=")[0])
            first = str(error).splitlines()[0]
            raise InputError(f"{names}: {first} That choice has no such setting; see conf/") from None

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """One cell's configuration, in which only Hydra's own part does not know of the values.

        Raises ConfigCompositionException as Hydra does.
        """
        base = self._of_groups(tuple(o for o in overrides if self._parsed(o)[1]))
        cfg = duplicate(base)
        self.loader._apply_overrides_to_config([self._parsed(o)[0] for o in overrides if not self._parsed(o)[1]], cfg)
        return cfg

    def _compose(self, groups: tuple[str, ...]) -> DictConfig:
        return self.loader.load_sweep_config(self.config, list(groups))

    def _parse(self, override: str) -> tuple[Override, bool]:
        """An override, and whether it chooses from a config group, as Hydra tells."""
        (parsed,) = self.parser.parse_overrides([override])
        group = self.loader.repository.group_exists(parsed.key_or_group)
        return parsed, group and not isinstance(parsed.value(), dict)


def duplicate(cfg: DictConfig) -> DictConfig:
    """A copy of a cell's configuration, of which Hydra's own part, which is large, is that of the original."""
    return copy.deepcopy(cfg, {id(cfg.hydra): cfg.hydra})
