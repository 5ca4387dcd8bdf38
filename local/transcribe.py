"""What is said in audio files: `python -m local.transcribe CHECKPOINT FILE...`.

A bad file gets a line, and the others are transcribed; the exit status is then 1.
"""

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from local import audio, samples
from local.config import CONF
from local.errors import InputError
from local.manifest import Utterance, printable
from local.marker import digest, read_json, read_marker

SHORTEST = 0.1  # seconds, as corpus.min_duration
LM_WEIGHT = 2.0  # what dev chose for mini LibriSpeech
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: as in local/run.py


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m local.transcribe",
        description="Print what is said in audio files, by the best path, or with a language model.",
        epilog="A file's name, without folder and suffix, is its utterance; text can be compared by local.compare.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="recognizer.pt of stage 5, or its folder")
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE",
        help="mono audio that libsndfile reads, resampled if the recognizer was trained at another rate",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("text", "json", "ctm"), default="text",
        help="utterance and text, one a line (the default); or with the begin and end of each word, in seconds",
    )  # fmt: skip
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--decode", type=Path, metavar="DIR",
        help="decode as stage 6 did in this folder of its: that language model, and the weights that dev chose",
    )  # fmt: skip
    model.add_argument("--lm", type=Path, metavar="DIR", help="decode with this language model, a folder exp/lm/...")
    parser.add_argument("--lm-weight", type=float, metavar="W", help=f"weight of --lm ({LM_WEIGHT:g})")
    parser.add_argument("--word-score", type=float, metavar="S", help="with --lm, added for each word (0)")
    args = parser.parse_args()
    if not all(math.isfinite(number) for number in (args.lm_weight, args.word_score) if number is not None):
        parser.error("--lm-weight and --word-score are to be finite numbers")
    if not args.lm and (args.lm_weight is not None or args.word_score is not None):
        parser.error("--lm-weight and --word-score go with --lm")
    return args


def decoder(args: argparse.Namespace, units: str | list[str]) -> Callable:
    """The decoder that the command line asks for."""
    from local.search import build

    if args.decode:
        marker, tuning = read_marker(args.decode), read_json(args.decode / "tuning.json")
        settings = (marker or {}).get("config", {}).get("decoder")
        if settings is None:
            raise InputError(f"{args.decode}: no finished folder of stage 6; run stage 6 (decode), or name another")
        folder = args.checkpoint if args.checkpoint.is_dir() else args.checkpoint.parent
        if (made := read_marker(folder)) and marker["inputs"]["finetune"] != digest(made):
            raise InputError(f"{args.decode}: what another recognizer than {folder} decoded; name a folder in that")
        settings |= {key: [value] for key, value in (tuning["dev"][0] if tuning else {}).items() if key in settings}
        settings["prior"] = read_json(args.decode / "prior.json")
        if "prior_weight" in settings and settings["prior"] is None:
            raise InputError(f"{args.decode}/prior.json: not there, or cut; run stage 6 again")
    elif args.lm:
        settings = yaml.safe_load((CONF / "decoder/lexicon.yaml").read_text(encoding="utf-8"))
        weight = LM_WEIGHT if args.lm_weight is None else args.lm_weight
        del settings["defaults"]
        settings |= {"lm": str(args.lm), "lm_weight": [weight], "word_score": [args.word_score or 0.0]}
        settings["prior_weight"] = [0.0]  # it is of a recognizer, and known where that has decoded dev
    else:
        settings = {"_target_": "local.decoders.greedy.Greedy"}
    for name in ("words", "further", "lm.bin") if settings.get("lm") else ():
        if not (path := Path(settings["lm"]) / name).is_file():
            raise InputError(f"{path}: not there, expected a language model of stage 6 in its folder; name exp/lm/...")
    return build(settings, units)


def transcribed(recognizer, decode: Callable, path: Path, timed: bool) -> dict:
    """The file, its duration in seconds, its text, and if `timed` its words with their begin and end in seconds.

    Raises InputError if it holds no speech that can be read.
    """
    import torch

    from local.word_times import times

    header, extractor = audio.header(path), recognizer.extractor
    duration = header.frames / header.rate
    if duration < SHORTEST:
        raise InputError(f"{path}: {duration:.3f} s of audio, expected at least {SHORTEST} s; leave it out")
    heard = audio.read(path, extractor.sample_rate, resample=True)
    samples.check(Utterance(path.stem, "", str(path), duration), heard, extractor.sample_rate, extractor.frame_shift)
    with torch.inference_mode():
        frames = recognizer(torch.from_numpy(heard))
        (text,) = decode(frames[None], torch.tensor([len(frames)]))
    found = {"file": printable(str(path)), "duration": round(duration, 3), "text": text}
    if timed:
        words = times(frames.numpy(), text, recognizer.recognizer.units, recognizer.frame_shift, duration)
        found["words"] = [{"word": word, "begin": round(a, 3), "end": round(b, 3)} for word, a, b in words]
    return found


def name(path: Path) -> str:
    """The utterance that a file is in lines of text or CTM, whose fields are parted by spaces."""
    return "_".join(path.stem.split())


def lines(found: dict, form: str) -> list[str]:
    """As text, an utterance and a tab before its words; or as CTM."""
    utterance = name(Path(found["file"]))
    if form == "text":
        return [f"{utterance}\t{found['text']}"]
    return [f"{utterance} 1 {w['begin']:.3f} {w['end'] - w['begin']:.3f} {w['word']}" for w in found["words"]]


def main() -> None:
    """Transcribe each file, and print."""
    args = arguments()
    every, failed = [], False
    try:
        if args.format != "json" and len({*map(name, args.files)}) < len(args.files):
            raise InputError("two files of one name, which the lines could not tell apart; use --format json")
        from lightning_modules.standalone import load

        recognizer = load(args.checkpoint)
        decode = decoder(args, recognizer.recognizer.units)
    except InputError as error:
        sys.exit(f"error: {error}")
    for path in args.files:
        try:
            found = transcribed(recognizer, decode, path, args.format != "text")
        except InputError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
            continue
        every.append(found)
        if args.format != "json":
            print("".join(f"{line}\n" for line in lines(found, args.format)), end="", flush=True)
    if args.format == "json":
        print(json.dumps(every, indent=1, ensure_ascii=False))
    sys.exit(int(failed))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end with what reads the output, as `head`
    main()
