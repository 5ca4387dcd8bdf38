"""How fast the LSTM encoder trains on a GPU, by its width.

    python -m tests.bench.lstm [--widths 320 384] [--rows 28] [--frames 352] [--layers 2] [--seconds 2]

Forward and backward in bfloat16, of so many utterances of so many frames after subsampling.
"""

import argparse
import time

import torch

from lightning_modules.encoders.lstm import LSTM


def main() -> None:
    """Print a line for each width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[320, 384])
    for name, value in (("rows", 28), ("frames", 352), ("layers", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seconds", type=float, default=2)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "error: no GPU is found, and on a processor a width makes no such difference\n")
    for width in arguments.widths:
        encoder = LSTM(256, width, arguments.layers, dropout=0.0).cuda()
        x = torch.randn(arguments.rows, arguments.frames, 256, device="cuda")
        lengths = torch.full((arguments.rows,), arguments.frames, device="cuda")

        def update(encoder: LSTM = encoder, x: torch.Tensor = x, lengths: torch.Tensor = lengths) -> None:
            with torch.autocast("cuda", torch.bfloat16):
                loss = encoder(x, lengths).float().square().mean()
            loss.backward()
            encoder.zero_grad()
            torch.cuda.synchronize()

        for _ in range(5):
            update()
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < arguments.seconds:
            update()
            count += 1
        took = 1000 * (time.perf_counter() - begin) / count
        print(f"width {width}: {took:.1f} ms an update ({arguments.rows} rows)", flush=True)


if __name__ == "__main__":
    main()
