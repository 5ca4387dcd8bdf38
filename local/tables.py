"""What results.json says, for people: RESULTS.md, and the same tables on a terminal."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from local import holdings, terminal
from local.results import BASELINES

ALPHA = 0.05
WIDTH = 100  # columns on a terminal, at most
COMPARISON_HEADER = ("arm", "against", "points", "relative %", "95 % interval", "detectable", "p", "p (Holm)")
CHARACTERS = "In characters, which say more where nearly all words are wrong; corrected as a family of their own:"
TUNED = (
    "What dev chose for the decoder, a seed after the other, and, to show what it would have been worth, the rate "
    "that choosing on this split would have claimed; no claim rests on it:"
)
TRIALS = "How many trials the search had of each arm; those that failed do not count:"
BESIDE_HEADER = ("arm", "against", "bootstrap, 95 % interval", "MAPSSWE of seeds", "segments", "z", "p")
BESIDE = (
    "Beside it, the percentile bootstrap over speakers and seeds, and NIST's matched-pairs test (MAPSSWE) of one seed "
    "of each arm, that of median dev error; the test knows nothing of other seeds, and no claim rests on it:"
)


class Section(NamedTuple):
    """A table and, if it is not empty, what stands above it."""

    caption: str
    header: Sequence[str]
    rows: list[list[str]]


def _arm_header(entry: dict) -> tuple[str, ...]:
    rates = (f"{entry['rate']} %, 95 % interval", "CER %", f"dev {entry['rate']} %")
    return ("arm", "front end", "seeds", *rates, "parameters", "updates", "device minutes") + (
        ("augmentation",) if _augmented_unlike(entry) else ()
    )


def _augmented_unlike(entry: dict) -> bool:
    """Whether rows differ in augmentation; results published before it was recorded have one and the same."""
    return len({row.get("augmentation") for row in entry["arms"]}) > 1


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def bounds(ci: list[float | None], form: str = ".2f") -> str:
    return "-" if ci[0] is None else f"[{ci[0]:{form}}, {ci[1]:{form}}]"


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def budget(entry: dict) -> str:
    """How much is labeled."""
    hours = entry["label_hours"]
    amount = "all" if hours is None else f"{60 * hours:.2g} min of" if hours < 0.5 else f"{hours:g} h of"
    drawn = " drawn anew for each seed" if hours is not None and entry.get("label_subset", 0) is None else ""
    return f"{amount} labels{drawn}"


def title(entry: dict) -> str:
    """What was scored, after training on what."""
    what = "words" if entry["rate"] == "WER" else "phones"
    reference = f"{entry['reference']['utterances']:,} utterances, {entry['reference']['words']:,} {what}"
    return f"{entry['corpus']}, {budget(entry)}, {entry['split']} ({reference}), decoder {entry['decoder']}"


def names(entry: dict) -> dict[tuple[str, str], str]:
    """A name for each row (arm, signature): the arm, and of front end and settings what tells it from others."""
    named = {}
    for row in entry["arms"]:
        same = [other for other in entry["arms"] if other["arm"] == row["arm"]]
        more = [row["frontend"]] * (len({other["frontend"] for other in same}) > 1)
        alike = [_settings(other) for other in same if other["frontend"] == row["frontend"]]
        if len(alike) > 1:
            own = " ".join(one for one in _settings(row) if not all(one in each for each in alike))
            more.append(f"trial {row['trial']}" if "trial" in row else own or row["settings"] or row["signature"])
        named[row["arm"], row["signature"]] = row["arm"] + (f" ({', '.join(more)})" if more else "")
    return named


def _settings(row: dict) -> list[str]:
    """Each `key=value` of a row; a value may have spaces."""
    return re.split(r" (?=[\w.@/]+=)", row["settings"])


def pair(entry: dict, c: dict) -> tuple[str, str]:
    """The names of a comparison's arm and baseline."""
    named = names(entry)
    return named[c["arm"], c["signature"]], named[c["baseline"], c["baseline_signature"]]


def _arm_rows(entry: dict) -> list[list[str]]:
    named = names(entry)
    return [
        [
            named[row["arm"], row["signature"]],
            row["frontend"],
            str(len(row["seeds"])),
            f"{row['wer']:.2f} {bounds(row['ci'])}",
            _number(row["cer"] if entry["rate"] == "WER" else None),  # phones have no characters
            _number(float(np.mean([seed["dev_wer"] for seed in row["seeds"]]))),
            f"{row['parameters']:,}",
            f"{row['updates']:,}",
            f"{row['device_seconds'] / 60:.1f}",
            *([row["augmentation"]] if _augmented_unlike(entry) else []),
        ]
        for row in entry["arms"]
    ]


def _tuned(entry: dict) -> list[list[str]]:
    """A header and a row for each arm whose decoder was tuned; nothing without, and none on dev, which chose."""
    named, rows = names(entry), []
    for row in entry["arms"] if entry["split"] != "dev" else []:
        if found := [seed["decoder"] for seed in row["seeds"] if "decoder" in seed]:
            keys = list(found[0]["chosen"])
            rows = rows or [["arm", "trials", *keys, f"{entry['rate']} %", "had this split chosen"]]
            chosen = [", ".join(f"{one['chosen'][key]:g}" for one in found) for key in keys]
            claimed = float(np.mean([one["chosen_here"] for one in found]))
            name = named[row["arm"], row["signature"]]
            rows.append([name, str(found[0]["trials"]), *chosen, f"{row['wer']:.2f}", f"{claimed:.2f}"])
    return rows


def _comparison_rows(entry: dict, unit: str | None = None) -> list[list[str]]:
    """Of words or phones, or of the unit of that name; results published before it was compared have none of it."""
    named = names(entry)
    differences = [(c, c.get(unit) if unit else c) for c in entry["comparisons"]]
    return [
        [
            named[c["arm"], c["signature"]],
            named[c["baseline"], c["baseline_signature"]],
            _number(d["delta"], "+.2f"),
            _number(d["relative"], "+.1f"),
            bounds(d["ci"], "+.2f"),
            _number(d["detectable"]),
            _p(d["p"]),
            _p(d["p_holm"]),
        ]
        for c, d in differences
        if d
    ]


def _beside_rows(entry: dict) -> list[list[str]]:
    named = names(entry)
    return [
        [
            named[c["arm"], c["signature"]],
            named[c["baseline"], c["baseline_signature"]],
            bounds(c["bootstrap"], "+.2f"),
            ", ".join(map(str, c["matched_pairs"]["seeds"])),
            f"{c['matched_pairs']['segments']:,}",
            _number(c["matched_pairs"]["z"], "+.2f"),
            _p(c["matched_pairs"]["p"]),
        ]
        for c in entry["comparisons"]
    ]


def verdict(c: dict, named: dict[tuple[str, str], str], rate: str) -> str:
    """One sentence: what may be claimed of an arm against one baseline."""
    arm, baseline = named[c["arm"], c["signature"]], named[c["baseline"], c["baseline_signature"]]
    low, high = c["ci"]
    relative = "" if c["relative"] is None else f" ({abs(c['relative']):.1f} %)"
    change = f"{'lowers' if c['delta'] < 0 else 'raises'} the {rate} by {abs(c['delta']):.2f} points{relative}"
    if low is None:
        return f"{arm} against {baseline}: cannot tell: {c['delta']:+.2f} points, and no spread to judge them by."
    evidence = f"95 % interval {bounds(c['ci'], '+.2f')}"
    if c["p"] is None and low <= 0 <= high:
        return (
            f"{arm} against {baseline}: cannot tell: {c['delta']:+.2f} points, {evidence}; this seed only: no p-value."
        )
    if c["p"] is None:
        return f"{arm} against {baseline}: {change}, {evidence}; this seed only: no p-value."
    evidence += f", p = {_p(c['p'])} ({_p(c['p_holm'])} by Holm)".replace("= <", "<")
    if c["p_holm"] < ALPHA:
        return f"{arm} {change} against {baseline}, {evidence}."
    if low <= 0 <= high:
        reason = f"smaller than the {c['detectable']:.2f} points this experiment could have shown"
    else:
        reason = "which does not stand after the correction for several comparisons"
    return f"{arm} against {baseline}: cannot tell: {c['delta']:+.2f} points, {reason}; {evidence}."


def verdicts(entry: dict) -> list[str]:
    """A sentence for each comparison of a pretrained arm."""
    named = names(entry)
    return [verdict(c, named, entry["rate"]) for c in entry["comparisons"] if c["arm"] not in BASELINES]


def comparisons(entry: dict, beside: str = BESIDE) -> list[Section]:
    """Differences, in characters too where there are such, and what stands `beside` them."""
    found = [Section("", COMPARISON_HEADER, _comparison_rows(entry))]
    if rows := _comparison_rows(entry, "characters"):
        found.append(Section(CHARACTERS, COMPARISON_HEADER, rows))
    return [*found, Section(beside, BESIDE_HEADER, _beside_rows(entry))]


def sections(entry: dict) -> list[Section]:
    """The tables of an entry, in their order."""
    found = [Section("", _arm_header(entry), _arm_rows(entry))]
    if trials := entry.get("trials"):
        rows = [[arm, str(had["finished"] + had["stopped"]), *map(str, had.values())] for arm, had in trials.items()]
        found.append(Section(TRIALS, ("arm", "trials", "finished", "stopped", "failed"), rows))
        settings = [[names(entry)[row["arm"], row["signature"]], row["settings"]] for row in entry["arms"]]
        found.append(Section("What was drawn for those that finished:", ("trial", "settings"), settings))
    if entry["comparisons"]:
        found += comparisons(entry)
    for caption, table in ((TUNED, _tuned(entry)), (holdings.caption(entry), holdings.table(entry, names(entry)))):
        if table:
            found.append(Section(caption, table[0], table[1:]))
    return found


def _markdown_table(section: Section) -> list[str]:
    rule = ["---"] * 2 + ["---:"] * (len(section.header) - 2)
    rows = ["| " + " | ".join(row) + " |" for row in (section.header, rule, *section.rows)]
    return [*([section.caption, ""] if section.caption else []), *rows, ""]


def render_markdown(found: list[dict]) -> str:
    """RESULTS.md: for each entry its arms, its comparisons and a verdict for each pretrained arm."""
    lines = ["# Results", ""]
    for entry in found:
        lines += [f"## {title(entry)}", ""]
        for section in sections(entry):
            lines += _markdown_table(section)
        said = verdicts(entry)
        lines += [f"- {sentence}" for sentence in said] + [""] * bool(said)
    return "\n".join(lines).rstrip() + "\n"


def print_section(section: Section, console: Console, width: int) -> None:
    """A table without lines; long names are folded."""
    if section.caption:
        console.print(Text(section.caption), width=width)
    table = terminal.table()
    for i, name in enumerate(section.header):
        justify = "right" if i > 1 else "left"
        table.add_column(Text(name), justify=justify, overflow="fold", no_wrap="interval" in name)
    for row in section.rows:
        table.add_row(*map(Text, row))
    console.print(table, width=width)
    console.print()


def print_table(found: list[dict], console: Console) -> None:
    """What `render_markdown` says, on a terminal; rich leaves out color where there is none."""
    width = min(WIDTH, console.width)
    for entry in found:
        console.print(Text(title(entry), style="bold"), width=width)
        for section in sections(entry):
            print_section(section, console, width)
        for sentence in verdicts(entry):
            console.print(Text(sentence), width=width)
        console.print()
