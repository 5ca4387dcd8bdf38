"""A recognizer as ONNX: `python -m local.export CHECKPOINT OUT.onnx`.

Features and normalization are part of it:

    samples [N]                           float32 in [-1, 1], mono, of 0.1 s or more
    log_probabilities [T, 1 + units]      natural logarithms; the first is the blank's

Its metadata are `sample_rate` in Hz, `frame_shift` in seconds from one row to the next, and `units`, a list in JSON.
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from local.errors import InputError, refusals_reported

NEEDED = ("onnx", "onnxscript")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: as in local/run.py


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m local.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="recognizer.pt of stage 5, or its folder")
    parser.add_argument("out", type=Path, metavar="OUT.onnx", help="the file to write")
    return parser.parse_args()


def main() -> None:
    """Load, and write."""
    args = arguments()
    try:
        if lacking := [name for name in NEEDED if not importlib.util.find_spec(name)]:
            raise InputError(f"{' and '.join(lacking)}: not installed; pip install onnx==1.23.2 onnxscript==0.7.2")
        if not args.out.parent.is_dir():
            raise InputError(f"{args.out.parent}: no such folder for {args.out.name}; make it, or name another")
        if args.out.exists() and not args.out.is_file() or args.out.resolve() == args.checkpoint.resolve():
            raise InputError(f"{args.out}: expected the name of the file to write; name another")
        from lightning_modules import onnx, standalone

        recognizer = standalone.load(args.checkpoint)
        with refusals_reported(args.out):
            onnx.write(recognizer, args.out)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"{args.out}: {args.out.stat().st_size:,} bytes; samples at {recognizer.extractor.sample_rate} Hz")


if __name__ == "__main__":
    main()
