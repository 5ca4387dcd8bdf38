"""Kill a whole sweep with SIGKILL again and again, and hold what it ends in against an undisturbed run of it.

    python -m tests.cluster.kills [--kills 100] [--seed 0] [--share 0.3] [--minutes 60]

The sweep is of three arms and two seeds, its trainings side by side (`hydra/launcher=joblib`). Each kill takes the
whole process group, driver and workers, at a moment drawn anew from that share of the time that it takes undisturbed;
then the same command starts in the same folder. A sweep that came to its end is compared, and the next one begins in a
new folder, until there were as many kills as asked for; the last sweep ends in peace. Compared are all files but logs:
times, memory and commit are left out of JSON, the rest, hypotheses and tables among it, is byte for byte. A directory
that was finished at a kill must be the same at the end, to its inode and time. All of it stays in the temporary folder
that is printed.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.kills import content, differences, killed, reached
from tests.conftest import TINY

SETTINGS = [
    *TINY, "autoencoder.updates=20", "recognizer.updates=20", "autoencoder.check_every=5", "recognizer.check_every=5",
    "arm=none,random,masked", "seed=1,2", "logger=csv", "hydra/launcher=joblib", "machine.jobs=2",
]  # fmt: skip


def finished(folder: Path) -> dict[Path, tuple]:
    """What each directory with a marker is known by, that a second making of it would change."""
    markers = {path: path.stat() for path in folder.rglob("done.json") if ".partial" not in str(path)}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in markers.items()}


def disturbed(folder: Path, moments: list[float], until: float) -> tuple[int, int]:
    """Run the sweep to its end, killed after each of the moments until that time; return kills, and what was redone."""
    kills, before = 0, {}
    folder.mkdir()
    while killed(folder, moment := moments[kills] if kills < len(moments) and time.time() < until else 3600, SETTINGS):
        kills += 1
        now = finished(folder)
        redone = [path for path, known in before.items() if now.get(path) != known]
        print(f"kill {kills:3}: after {moment:4.1f} s, {len(now)} directories done, at: {reached(folder)}", flush=True)
        if redone:
            return kills, len(redone)
        before = now
    now = finished(folder)
    return kills, sum(now.get(path) != known for path, known in before.items())


def main() -> None:
    """Print a line a kill, a line a sweep and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--share", type=float, default=0.3, help="of an undisturbed run, within which a kill comes")
    parser.add_argument("--minutes", type=float, default=60, help="after which there are no more kills")
    arguments = parser.parse_args()
    draw, begin = random.Random(arguments.seed), time.time()
    until = begin + 60 * arguments.minutes
    work = Path(tempfile.mkdtemp(prefix="kills-"))
    (calm := work / "calm").mkdir()
    killed(calm, 3600, SETTINGS)
    expected, sweeps, kills, unlike, redone = content(calm), 0, 0, 0, 0
    longest = arguments.share * (time.time() - begin)
    print(f"undisturbed: {time.time() - begin:.0f} s, {len(expected)} files to compare, in {work}", flush=True)
    while kills < arguments.kills and time.time() < until:
        folder = work / f"sweep{(sweeps := sweeps + 1)}"
        moments = [draw.uniform(0, longest) for _ in range(arguments.kills - kills)]
        count, again = disturbed(folder, moments, until)
        found = differences(expected, content(folder))
        kills, redone, unlike = kills + count, redone + again, unlike + len(found)
        print(f"sweep {sweeps}, {count} kills: {', '.join(found) or 'the same'}; {again} redone", flush=True)
    seconds = time.time() - begin
    print(
        f"{kills} kills, {sweeps} sweeps, {seconds:.0f} s: {unlike} files differ, {redone} finished directories redone"
    )
    sys.exit(bool(unlike or redone or kills < arguments.kills))


if __name__ == "__main__":
    main()
