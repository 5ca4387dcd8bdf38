"""The configurations of a sweep's cells, which are to be those that Hydra composes."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from local.composition import Composition
from local.config import CONF, named, unnamed

POOL = [
    *("arm=none", "arm=masked", "arm=random", "arm=dense", "autoencoder=convolutional", "units=phones48"),
    *("encoder@autoencoder.encoder=conformer", "encoder@recognizer.encoder=transformer", "labels=drawn"),
    *("decoder=beam_lm", "sweep=tune", "trial=b", "recipe=mini_librispeech", "features=mfcc", "+new=1", "+a.b.c=[1]"),
    *("seed=7", "seed=null", "autoencoder.learning_rate=0.5", "autoencoder.bottleneck=3", "autoencoder.nothing=1"),
    *("recognizer.learning_rate=1e-3", "recognizer.encoder.width=48", "recognizer.average=null", "labels.hours=0.1"),
    *("~recognizer.span", "~recognizer.nothing", "~autoencoder.span", "++recognizer.span=3", "+recognizer.span=4"),
    *("decoder.splits=[dev]", "corpus.minutes={pretrain:1,more:2}", "+corpus.minutes={far:3}", "corpus.snr=[1,2]"),
    *("corpus.name='a, b: \"c\"'", 'arm.name="it\'s"', "corpus.root=/some/where", "corpus.name=x${seed}y"),
    *("recognizer.updates=${autoencoder.updates}", "unlabeled.hours=${labels.hours}", "dirs.pretrain=null"),
    *("dirs.report=exp/${arm.name}-${sig:recognizer}", "recognizer=3", "recognizer.encoder=null", "lm.prune=[0,1]"),
]  # fmt: skip


@pytest.fixture(scope="module")
def composition():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield Composition(
            loader, loader.load_configuration("config", ["lm.order=2"], RunMode.MULTIRUN, from_shell=False)
        )


def content(cfg: DictConfig) -> dict:
    """Of a configuration, in its order and with its interpolations, what is not Hydra's own."""
    return {key: value for key, value in OmegaConf.to_container(cfg).items() if key != "hydra"}


def outcome(compose, overrides: list[str]):
    try:
        return content(compose(overrides))
    except Exception as error:  # Hydra raises many kinds
        return type(error), str(error)


def hydras(composition: Composition, overrides: list[str]) -> DictConfig:
    return composition.loader.load_sweep_config(composition.config, overrides)


@pytest.mark.parametrize("override", POOL)
def test_with_each_override_a_cell_is_what_hydra_composes_or_refuses_in_the_same_words(composition, override):
    overrides = ["seed=3", override]
    assert repr(outcome(composition.compose, overrides)) == repr(
        outcome(lambda given: hydras(composition, given), overrides)
    )


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(overrides=st.lists(st.sampled_from(POOL), min_size=2, max_size=6))
def test_with_several_in_any_order_too_whatever_was_composed_before(composition, overrides):
    expected = repr(outcome(lambda given: hydras(composition, given), overrides))
    for _ in range(2):
        assert repr(outcome(composition.compose, overrides)) == expected


def test_names_are_those_that_interpolation_gives_and_are_taken_back(composition):
    for overrides in (
        ["arm=none", "seed=2"],
        ["arm=dense", "decoder=lexicon"],
        ["labels=drawn", "sweep=tune", "trial=c"],
    ):
        expected = hydras(composition, overrides)
        cfg = named(composition.compose(overrides))
        assert OmegaConf.to_container(cfg.dirs) == OmegaConf.to_container(expected.dirs, resolve=True)
        for one in (unnamed(cfg), expected):
            one.seed = 99
        assert content(cfg) == content(expected) and cfg.dirs.score == expected.dirs.score


def test_a_cell_leaves_those_after_it_as_they_are(composition):
    first = composition.compose(["seed=1"])
    with open_dict(first):
        first.recognizer.encoder.width = first.more = 5
    assert content(composition.compose(["seed=1"])) == content(hydras(composition, ["seed=1"]))


def test_an_arm_keeps_the_settings_of_an_autoencoder_that_it_has(composition):
    asked = [
        "autoencoder.noise=0.1",
        "arm=pca",
        "autoencoder.bottleneck=8",
        "encoder@autoencoder.encoder=lstm",
        "seed=2",
    ]
    kept, cfg = composition.reduced(asked)
    assert kept == ["arm=pca", "seed=2", "autoencoder.bottleneck=8"]
    assert content(cfg) == content(hydras(composition, kept))
