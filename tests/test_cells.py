"""What a cell says of itself, by which the report knows what may be compared."""

from hydra import compose, initialize_config_dir

from local.cells import _apart
from local.config import CONF, named
from local.listing import digests


def composed(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def digests_of(*overrides: str) -> dict[str, str]:
    return digests(composed(*overrides))


def differ(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {key for key in one if one[key] != other[key]}


def test_digests_tell_a_front_end_a_size_and_everything_else_apart():
    masked, none = digests_of("arm=masked"), digests_of("arm=none")
    assert differ(masked, none) == {"front_end"}
    assert differ(none, digests_of("arm=none", "recognizer.encoder.width=192", "recognizer.width=96")) == {
        "shared",
        "untimed",
    }
    assert differ(none, digests_of("arm=none", "recognizer.updates=50")) == {"shared", "unsized"}
    for setting in ("recognizer.encoder.dropout=0.1", "labels.hours=0.1"):
        assert differ(none, digests_of("arm=none", setting)) == {"shared", "unsized", "untimed"}
    for setting in ("autoencoder.trained=false", "recognizer.thaw=0.5", "seed=7", "unlabeled.hours=1"):
        assert not differ(masked, digests_of("arm=masked", setting))
    for setting in ("autoencoder.bottleneck=32", "recognizer.frontend=frozen"):
        assert differ(masked, digests_of("arm=masked", setting)) == {"front_end"}


def test_jobs_that_share_a_recognizer_are_not_side_by_side_or_one_would_wait():
    asked = [["arm=none", f"seed={seed}", f"decoder={name}"] for seed in (1, 2) for name in ("greedy", "beam")]
    found = _apart([(one, named(composed(*one))) for one in asked])
    assert found == [asked[0], asked[2], asked[1], asked[3]]
