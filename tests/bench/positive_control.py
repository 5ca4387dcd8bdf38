"""The report of a job on synthetic speech has to find what is there: `masked` below `none` and below `random`.

    ./run.sh corpus.minutes.pretrain=30 autoencoder.updates=300 recognizer.updates=200
    python -m tests.bench.positive_control exp/espeak/report

With so few updates pretraining shows most, so an instrument whose 95 % intervals do not exclude zero there is broken,
or was given too little to do. Exits with status 1 then, as it does after the default job with its three seeds.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="the directory that stage 8 wrote, such as exp/espeak/report")
    path = parser.parse_args().report / "results.json"
    if not path.is_file():
        sys.exit(f"error: {path}: not found; run stage 8 first")
    found = [c for entry in json.loads(path.read_text(encoding="utf-8")) for c in entry["comparisons"]]
    for baseline in ("none", "random"):
        intervals = [c["ci"] for c in found if (c["arm"], c["baseline"]) == ("masked", baseline)]
        if not intervals or any(high is None or high >= 0 for _, high in intervals):
            sys.exit(f"error: {path}: masked is not below {baseline}; 95 % intervals of the difference: {intervals}")
        print(
            f"masked is below {baseline}: {', '.join(f'[{low:+.2f}, {high:+.2f}]' for low, high in intervals)} points"
        )


if __name__ == "__main__":
    main()
