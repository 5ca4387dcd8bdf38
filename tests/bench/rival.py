"""Our baseline against SpeechBrain's own CTC recipe: the same audio, labels, device and time.

    python -m tests.bench.rival [--root $HOURGLASS_DATA/LibriSpeech] [--dev dev-clean-2] [--hours 1]

Arm `none` of recipe mini_librispeech is trained for its updates; then the rival (tests/bench/speechbrain_recipe.py) for
as many seconds as that took, each in a process of its own with one thread. On a CPU counted is CPU time, which on a
shared machine means the same as on an idle one. Ours includes validation; the rival's clock stands still meanwhile, so
it gets more. Filterbanks of ours are made once for all trainings (stage 2) and are not counted, those of the rival are
part of its batches, and are. Both keep the checkpoint that is best on dev, by the rate that the recipe chooses by, and
both are scored there, greedily, by local.scoring: of both the figure is a little too good, and test is not looked at.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hydra import compose, initialize_config_dir

from local.config import CONF, plain
from local.labels import subset
from local.manifest import Utterance, read_archived
from local.scoring import read_counts, write_scores
from local.stage import stage_named


def settings(arguments: argparse.Namespace) -> list[str]:
    """Of our arm."""
    splits = [f"corpus.splits.{split}=[{getattr(arguments, split)}]" for split in ("dev", "test")]
    updates = [f"recognizer.updates={arguments.updates}"] if arguments.updates else []
    return [
        *(f"corpus.root={arguments.root}", *splits, "arm=none", "decoder.splits=[dev]"),
        *("logger=csv", f"seed={arguments.seed}", f"labels.hours={arguments.hours}", *updates),
    ]


def configuration(*overrides: str, recipe: str = "mini_librispeech"):
    """Of an arm of a recipe for mini LibriSpeech."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"recipe={recipe}", *overrides])


def utterances(cfg, split: str) -> list[Utterance]:
    """Of dev, or of the labeled part of train."""
    found = read_archived(Path(cfg.dirs.data) / split, Path(cfg.dirs.features) / split)
    return subset(found, cfg.labels.hours, cfg.labels.seed) if split == "train" else found


def clock(device: str) -> Callable[[], float]:
    """Seconds, of the processor on a CPU."""
    return time.perf_counter if device == "cuda" else time.process_time


def say(name: str, directory: Path, updates: int, heard: float, seconds: float) -> None:
    """A line of results, and a file for the process that compares."""
    scores = read_counts(directory)
    rates = f"dev WER {scores.words.rate:.2f} %, CER {scores.characters.rate:.2f} %"
    speed = f"{heard / seconds:.0f} s of audio a second"
    print(f"{name}: {rates}, {updates} updates in {seconds:.0f} s, {heard / 3600:.2f} h of audio, {speed}")
    found = [scores.words.rate, scores.characters.rate, heard / seconds, seconds]
    Path(f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


def ours(arguments: argparse.Namespace) -> None:
    """Stages 5 to 7 of arm `none`."""
    import torch

    from lightning_modules.batch import Batcher

    heard, cut, now = [0.0], Batcher.cut, clock(arguments.device)

    def counted(self, indices, generator, *share):
        if generator is not None:  # in training
            heard[0] += 0.01 * float(self.lengths[indices].sum())
        return cut(self, indices, generator, *share)

    Batcher.cut = counted
    torch.set_num_threads(1)
    cfg = configuration(*settings(arguments), recipe=arguments.recipe)
    shutil.rmtree(cfg.dirs.finetune, ignore_errors=True)
    start = now()
    stage_named("finetune")(cfg)
    seconds = now() - start
    for name in ("decode", "score"):
        stage_named(name)(cfg)
    say("ours", Path(cfg.dirs.score) / "dev", cfg.recognizer.updates, heard[0], seconds)


def rival(arguments: argparse.Namespace) -> None:
    """The rival for `--seconds`."""
    import torch

    from tests.bench import speechbrain_recipe as theirs

    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    cfg, out = configuration(*settings(arguments), recipe=arguments.recipe), Path("rival")
    encoder = theirs.text_encoder(plain(cfg, "units")["inventory"])
    out.mkdir(exist_ok=True)
    train, dev = (theirs.dataset(utterances(cfg, split), encoder, out / f"{split}.json") for split in ("train", "dev"))
    train, loading = theirs.batching(train, arguments.batches, cfg.recognizer.batch_seconds, arguments.seed)
    optimizer = theirs.OPTIMIZERS[arguments.optimizer]
    if arguments.rate:
        optimizer = partial(optimizer, lr=arguments.rate)
    with tempfile.TemporaryDirectory() as checkpoints:
        brain = theirs.recipe(
            arguments.model, arguments.width, optimizer, encoder, Path(checkpoints), arguments.device,
            arguments.seconds, clock(arguments.device), (cfg.recognizer.best or "wer").upper(),
        )  # fmt: skip
        print(f"rival: {sum(p.numel() for p in brain.modules.parameters()):,} parameters", flush=True)
        hypotheses = theirs.train(brain, train, loading, dev, cfg.recognizer.check_every)
    references = {u.id: u.text for u in utterances(cfg, "dev")}
    write_scores(out / "score", references, hypotheses, {u.id: u.speaker for u in utterances(cfg, "dev")})
    say("rival", out / "score", brain.updates, brain.heard, brain.spent)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=os.environ.get("HOURGLASS_DATA", ".") + "/LibriSpeech", type=os.path.abspath)
    parser.add_argument("--dev", default="dev-clean-2", help="its folder of dev")
    parser.add_argument("--test", default="test-clean", help="its folder of test, which is not looked at")
    parser.add_argument("--hours", default="1", help="of labels, or all")
    parser.add_argument("--updates", type=int, help="of ours; the recipe's")
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--recipe", default="mini_librispeech", choices=("mini_librispeech", "mini_librispeech_gpu"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--model", default="strided", choices=("crdnn", "strided"), help="of the rival")
    parser.add_argument("--width", default=128, type=int, help="of the rival")
    parser.add_argument("--optimizer", default="adam", choices=("adadelta", "adam"), help="of the rival")
    parser.add_argument("--rate", type=float, help="of learning, of the rival; its recipes', 1.0 or 0.001")
    parser.add_argument("--batches", default="dynamic", choices=("sorted", "dynamic"), help="of the rival")
    parser.add_argument("--work", type=os.path.abspath, help="a folder to use again, with its features")
    parser.add_argument("--side", choices=("ours", "rival"), help="run one side, in the working directory")
    parser.add_argument("--seconds", type=float, help="of training, for --side rival")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    if arguments.side:
        return globals()[arguments.side](arguments)
    work = Path(arguments.work or tempfile.mkdtemp(prefix="rival-"))
    work.mkdir(exist_ok=True)
    here = {"cwd": work, "env": os.environ | {"PYTHONPATH": str(CONF.parent), "OMP_NUM_THREADS": "1"}}
    stages = [f"recipe={arguments.recipe}", "stage=0", "stop_stage=2", *settings(arguments)]
    prepare = [sys.executable, "-m", "local.run", "-m", *stages]
    if status := subprocess.run(prepare, check=False, stdout=subprocess.DEVNULL, **here).returncode:
        sys.exit(status)  # it has said why
    found, seconds = {}, []
    for side in ("ours", "rival"):
        command = [sys.executable, "-m", "tests.bench.rival", *sys.argv[1:], "--side", side, *seconds]
        subprocess.run(command, check=True, **here)
        found[side] = json.loads((work / f"{side}.json").read_text(encoding="utf-8"))
        seconds = ["--seconds", str(found[side][-1])]
    wer, cer, speed, _ = (a / b for a, b in zip(*found.values(), strict=True))
    print(f"ours against the rival's: WER {wer:.2f} times, CER {cer:.2f} times, audio a second {speed:.2f} times")


if __name__ == "__main__":
    main()
