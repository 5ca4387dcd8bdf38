"""How many times real time decoding takes, on one core, with what a trained recognizer puts out for dev.

    ./run.sh arm=none seed=1 --stop-stage decode decoder=lexicon    # or any other run, and any corpus
    python -m tests.bench.decoding arm=none seed=1 [--seconds 600] [key=value ...]

Counted is CPU time, which on a shared machine means the same as on an idle one. `features` reads and runs the
recognizer, in one thread; the others decode its log-probabilities. A recognizer that hardly knows what it hears leaves
a search more to do.
"""

import argparse
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from local import archive
from local.config import CONF, plain
from local.frontend import source
from local.search import build
from local.stages.decode import log_probabilities, prior

DECODERS = ("greedy", "beam", "beam_lm", "lexicon")


def configuration(*overrides: str):
    """Of a run."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["decoder.splits=[dev]", "trainer.accelerator=cpu", *overrides])


def timed(work: Callable) -> tuple[float, object]:
    """CPU seconds, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main() -> None:
    """Print a line for each decoder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="of audio that a search gets")
    parser.add_argument("settings", nargs="*", help="those of the run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cfg = configuration(*arguments.settings)
    directory, _ = source(cfg)
    data = archive.read(directory / "dev", "none")
    durations = {key: size * data.frame_shift for key, size in zip(data.ids, data.lengths.tolist(), strict=True)}
    log_probabilities(cfg)  # imports what takes seconds
    took, found = timed(lambda: log_probabilities(cfg)["dev"])
    total = sum(durations.values())
    print(f"features   {total / took:8.0f} x real time ({total:.0f} s of audio)", flush=True)
    some = [
        key for key, sum_ in zip(found, accumulate(map(durations.get, found)), strict=True) if sum_ <= arguments.seconds
    ]
    heard = sum(map(durations.get, some))
    for name in DECODERS:
        settings = plain(chosen := configuration(*arguments.settings, f"decoder={name}"), "decoder")
        if chosen.dirs.lm and not Path(chosen.dirs.lm).is_dir():
            print(f"{name:10} has no {chosen.dirs.lm}; run stage 6 with decoder={name}")
            continue
        if "prior_weight" in settings:
            settings["prior"] = prior(found.values())
        decoder = build(settings, plain(chosen, "units")["inventory"])
        took, _ = timed(lambda decoder=decoder: [decoder.search(found[key], 1) for key in some])
        print(f"{name:10} {heard / took:8.0f} x real time ({heard:.0f} s of audio)", flush=True)


if __name__ == "__main__":
    main()
