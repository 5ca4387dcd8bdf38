"""The verdict on anybody's hypotheses, without training: word error rates, differences, and how sure both are.

The first system is the baseline that each other one is held against. Statistics are those of the report
(local/significance.py); texts are taken as they are, so normalize references and hypotheses alike before.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from local import hypotheses, tables
from local.edits import Counts, align, count_characters, tally
from local.errors import InputError, refusals_reported
from local.manifest import read_table
from local.marker import read_json, write_atomically
from local.results import difference, fingerprint, matched
from local.significance import MIN_SEEDS, bootstrap, compare, holm, interval, resample

SYSTEMS = ("system", "hypotheses", "{rate} %, 95 % interval", "sub", "del", "ins", "missing")
CHANGED = ("system", "against", "utterances better", "worse", "speakers better", "worse")
WHAT, HOW = ("utterances", "speakers"), ("better", "worse")  # its columns
MOST = ("errors", "baseline's", "of")
SHOWN = 5  # of what became better or worse, for each system
BESIDE = (
    "Beside it, the percentile bootstrap over speakers and hypotheses, and NIST's matched-pairs test (MAPSSWE) of one "
    "hypothesis of each system, by number, that of median errors; it knows nothing of other hypotheses:"
)
ONE = (
    "A system with fewer than three hypotheses shows nothing of how much training it anew would change: its intervals "
    "are about these hypotheses on other speakers, and there is no p but that of the matched pairs."
)
ALIKE = (
    "All utterances count as one speaker's, by the start of their names, so there is no interval; if they are of "
    "several, name them: --utt2spk FILE."
)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m local.compare",
        description=__doc__.partition("\n\n")[0],
        epilog="A file is sclite's .trn, a .ctm, Kaldi's text (any other name), or a score directory of stage 7. "
        "Speakers are, as for sclite, the start of an utterance up to its first - or _, unless --utt2spk tells them.",
    )
    parser.add_argument("reference", type=Path, metavar="REF", help="what was said")
    parser.add_argument(
        "systems", nargs="+", metavar="[NAME=]HYP[,HYP...]",
        help="what a system heard, the baseline first; several hypotheses of one are trainings with different seeds",
    )  # fmt: skip
    parser.add_argument("--utt2spk", type=Path, metavar="FILE", help="Kaldi's map of utterances to speakers")
    parser.add_argument("--characters", action="store_true", help="compare characters, spaces included, not words")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write all of it there too, with every utterance and speaker that changed",
    )
    return parser.parse_args()


def named(system: str) -> tuple[str, list[Path]]:
    """A system's name and its hypotheses; of `NAME=FILES` the name, and without one what the first file is called."""
    name, equals, paths = system.partition("=")
    if not equals or all(Path(path).exists() for path in system.split(",")):
        name, paths = system.partition(",")[0], system
    if not (name and all(paths.split(","))):
        raise InputError(f"{system!r}: expected a file, or NAME=FILE, and several parted by single commas")
    return name, [Path(path) for path in paths.split(",")]


def texts(path: Path, side: str) -> dict[str, str]:
    """Utterance to text of a file, or of `side`.trn in a score directory."""
    return hypotheses.read(path / f"{side}.trn" if path.is_dir() else path)


def speakers(utterances: list[str], utt2spk: Path | None) -> tuple[list[str], np.ndarray]:
    """The K names of the speakers, and the number [U] of each utterance's."""
    names = [utterance.partition("-")[0].partition("_")[0] for utterance in utterances]
    if utt2spk:
        said = read_table(utt2spk)
        if lacking := [utterance for utterance in utterances if utterance not in said]:
            raise InputError(f"{utt2spk}: {lacking[0]} has no speaker ({len(lacking)} such); add a line for each")
        names = [said[utterance] for utterance in utterances]
    different, who = np.unique(names, return_inverse=True)
    return different.tolist(), who


def check(path: Path, reference: dict[str, str], found: dict[str, str], where: Path) -> None:
    """Raise InputError unless the hypotheses are of these references."""
    if unknown := [key for key in found if key not in reference]:
        raise InputError(
            f"{path}: {unknown[0]} is not in {where} ({len(unknown)} such); compare on the same utterances"
        )
    if path.is_dir() and print_of(texts(path, "ref")) != print_of(reference):
        raise InputError(f"{path}: was scored on references that differ from {where}; score it on the same text")


def print_of(reference: dict[str, str]) -> str:
    """The fingerprint of references, as the report has it."""
    return fingerprint(f"{text} ({key})".lstrip() for key, text in reference.items())


def tokens(text: str, characters: bool) -> list[str]:
    """What errors are counted in."""
    return list(text) if characters else text.split(" ") if text else []


def verdict(args: argparse.Namespace) -> dict:
    """The systems and comparisons, in the shape of an entry of results.json, rates in percent."""
    reference = texts(args.reference, "ref")
    order = sorted(reference)
    said = [tokens(reference[key], args.characters) for key in order]
    length = np.array([len(text) for text in said])
    if not length.sum():
        raise InputError(f"{args.reference}: {len(reference)} utterances without a word; nothing can be compared")
    who_are, who = speakers(order, args.utt2spk)
    words = np.bincount(who, length).astype(int)
    systems: dict[str, dict] = {}
    for name, paths in map(named, args.systems):
        if name in systems:
            raise InputError(f"{name}: two systems of this name; call them NAME=FILE, or part one's seeds by commas")
        if len({path.resolve() for path in paths}) < len(paths):
            raise InputError(f"{name}: one file as several seeds, which says no more than once; name each seed's own")
        ops, counts, missing = [], [], 0
        for path in paths:
            found = texts(path, "hyp")
            check(path, reference, found, args.reference)
            missing += len(reference) - len(found)
            ops.append(align(said, [tokens(found.get(key, ""), args.characters) for key in order]))
            counts.append(
                [count_characters(reference[key], found.get(key, "")) for key in order]  # as the report counts them
                if args.characters
                else list(map(tally, ops[-1]))
            )
        errors = np.array([[each.errors for each in one] for one in counts])
        by_speaker = np.array([np.bincount(who, each, len(words)) for each in errors]).astype(int)
        total = sum((each for one in counts for each in one), Counts())
        systems[name] = {"ops": ops, "total": total, "missing": missing, "utterances": errors, "speakers": by_speaker}
    return {
        "rate": "CER" if args.characters else "WER",
        "reference": {
            "utterances": len(order), "speakers": len(words), "words": int(length.sum()),
            "sha256": print_of(reference), "empty": int((length == 0).sum()),
        },
        "arms": [_system(name, system, words) for name, system in systems.items()],
        "comparisons": _comparisons(systems, {"utterances": (order, length), "speakers": (who_are, words)}),
    }  # fmt: skip


def _system(name: str, system: dict, words: np.ndarray) -> dict:
    counts = system["total"]
    wer, low, high = interval(system["speakers"], words)
    return {
        "arm": name, "signature": "", "frontend": "", "settings": "", "hypotheses": len(system["ops"]), "wer": wer,
        "ci": [low, high], "errors": {"sub": counts.sub, "del": counts.del_, "ins": counts.ins},
        "missing": system["missing"],
    }  # fmt: skip


def _comparisons(systems: dict[str, dict], spoken: dict[str, tuple[list[str], np.ndarray]]) -> list[dict]:
    """Each later system against the first; a system's matched pairs are of its median hypothesis.

    `spoken` has the names of utterances and of speakers, and how many words each said.
    """
    (first, baseline), *others = systems.items()
    words = spoken["speakers"][1]
    drawn = resample(np.concatenate([system["speakers"] for system in systems.values()]), words)
    ends = np.cumsum([len(system["speakers"]) for system in systems.values()])
    rates = dict(zip(systems, np.split(drawn, ends[:-1]), strict=True))
    found = []
    for name, system in others:
        result = compare(baseline["speakers"], system["speakers"], words)
        drawn = (None, None) if result.low is None else bootstrap(rates[first], rates[name])
        medians = [_median(one["utterances"]) for one in (system, baseline)]
        pairs = matched(baseline["ops"][medians[1]], system["ops"][medians[0]], [i + 1 for i in medians])
        changed = {
            what: _changed(names, *(one[what].mean(0) for one in (baseline, system)), count)
            for what, (names, count) in spoken.items()
        }
        found.append(
            {"baseline": first, "baseline_signature": "", "arm": name, "signature": "", "frontend": ""}
            | difference(result)
            | {"bootstrap": list(drawn), "matched_pairs": pairs}
            | changed
        )
    for comparison, p in zip(found, holm([c["p"] for c in found]), strict=True):
        comparison["p_holm"] = p
    return found


def _median(errors: np.ndarray) -> int:
    """The hypothesis [S, U] of median errors; of an even number, the better of the two in the middle."""
    return int(np.argsort(errors.sum(1), kind="stable")[(len(errors) - 1) // 2])


def _changed(names: list[str], before: np.ndarray, after: np.ndarray, length: np.ndarray) -> dict[str, list]:
    """Name, errors, the baseline's, and of how many, of what became better and of what became worse, the most first."""
    order = np.argsort(before - after, kind="stable")
    rows = [(names[i], float(after[i]), float(before[i]), int(length[i])) for i in order]
    worse = [row for row in rows if row[1] > row[2]]
    return {"better": [row for row in reversed(rows) if row[1] < row[2]], "worse": worse}


def _most(found: dict, what: str, how: str) -> tables.Section:
    """A table of the utterances or speakers that became better or worse by most, system after system."""
    rows = [
        [comparison["arm"], name, f"{after:g}", f"{before:g}", str(length)]
        for comparison in found["comparisons"]
        for name, after, before, length in comparison[what][how][:SHOWN]
    ]
    return tables.Section(f"{what.capitalize()} that became {how}, the most first:", ("system", what[:-1], *MOST), rows)


def show(found: dict, console: Console) -> None:
    """The tables, and a sentence a comparison."""
    width = min(tables.WIDTH, console.width)

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), width=width)

    reference = found["reference"]
    what = "characters" if found["rate"] == "CER" else "words"
    say(
        f"{reference['utterances']:,} utterances, {reference['words']:,} {what}, {reference['speakers']:,} speakers; "
        f"references {reference['sha256'][:12]}", "bold"
    )  # fmt: skip
    if reference["empty"]:
        say(f"{reference['empty']} references are empty: all that is heard there counts as inserted")
    systems = [
        [
            one["arm"], str(one["hypotheses"]), f"{one['wer']:.2f} {tables.bounds(one['ci'])}",
            *(f"{one['errors'][kind]:,}" for kind in ("sub", "del", "ins")), str(one["missing"]),
        ]
        for one in found["arms"]
    ]  # fmt: skip
    header = tuple(name.format(rate=found["rate"]) for name in SYSTEMS)
    tables.print_section(tables.Section("", header, systems), console, width)
    if any(one["missing"] for one in found["arms"]):
        say("missing hypotheses count as all deletions\n")
    changed = [
        [c["arm"], c["baseline"], *(str(len(c[what][how])) for what in WHAT for how in HOW)]
        for c in found["comparisons"]
    ]
    sections = tables.comparisons(found, BESIDE) if found["comparisons"] else []
    sections += [tables.Section("", CHANGED, changed), *(_most(found, what, how) for what in WHAT for how in HOW)]
    for section in sections:
        if section.rows:
            tables.print_section(section, console, width)
    if reference["speakers"] == 1:
        say(ALIKE)
    if any(one["hypotheses"] < MIN_SEEDS for one in found["arms"]):
        say(ONE)
    named = tables.names(found)
    for comparison in found["comparisons"]:
        say(tables.verdict(comparison, named, found["rate"]))


def main() -> None:
    """Compare, show, and write if asked to."""
    args = arguments()
    try:
        if args.json and args.json.exists() and not (args.json.is_file() and read_json(args.json)):
            raise InputError(f"{args.json}: is there, and no JSON; name another file, or remove it")
        found = verdict(args)
        if args.json:
            with refusals_reported(args.json):
                write_atomically(args.json, json.dumps(found, indent=1) + "\n")
    except InputError as error:
        sys.exit(f"error: {error}")
    console = Console()
    show(found, console if console.is_terminal else Console(width=tables.WIDTH))


if __name__ == "__main__":
    main()
