"""The report as one page of HTML that opens without a network: index.html, from what lies beside it.

Whatever comes from data or settings is escaped. The numbers are those of results.json.
"""

import base64
import io
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

from local import audio, manifest
from local.differences import Change, Heard, changes, confusions, contrasts, rows
from local.errors import InputError
from local.marker import read_marker
from local.results import Cell
from local.tables import Section, names, sections, title, verdict, verdicts

SAMPLE_RATE = 16000  # Hz, of the audio to listen to
CONFUSIONS = 10  # of each arm
MADE = ("pretrain", "bottleneck", "finetune", "decode", "score")
# What matplotlib draws with, as the page names it, so that it follows light and dark.
PALETTE = "1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 7f7f7f bcbd22 17becf".split()
COLORS = {f"#{color}": f"var(--c{number})" for number, color in enumerate(PALETTE)}
COLORS |= {"#000000": "currentColor", "#b0b0b0": "var(--rule)", "#ffffff": "none", "#cccccc": "var(--rule)"}
TAGS = {"C": "span", "S": "mark", "D": "del", "I": "ins", "": "span"}


def render(found: list[dict], cells: list[Cell], listed: list[dict], directory: Path, commit: str | None) -> str:
    """The page of results.json's content `found`, whose pictures lie in `directory`.

    `cells` are what `found` was made of, `listed` the sweep's list of them, with their directories.
    """
    corpora = ", ".join(dict.fromkeys(entry["corpus"] for entry in found))
    heading = f"{corpora}: does pretraining lower the {found[0]['rate']}?"
    parts = {
        "Results": "".join(map(_entry, found)),
        "Curves": _pictures(directory, "*_hours-*.svg", "curves.svg") + _said("history.json of each training"),
        "Errors": "".join(_errors(number, entry, cells, directory) for number, entry in enumerate(found, 1)),
        "Utterances": _utterances(found, cells, {one["dirs"]["score"]: one["dirs"]["data"] for one in listed}),
        "Reconstructions": _reconstructions(directory),
        "Cost": "".join(map(_cost, found)),
        "Provenance": _provenance(found, listed, commit),
    }
    parts = {name: part for name, part in parts.items() if part}
    links = "".join(f'<a href="#{name}">{name}</a>' for name in parts)
    body = f"<h1>{escape(heading)}</h1>\n{_lead(found)}\n<nav>{links}</nav>\n"
    body += "\n".join(f'<h2 id="{name}">{name}</h2>\n{part}' for name, part in parts.items())
    skeleton = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return skeleton.substitute(title=escape(heading), body=body)


def _lead(found: list[dict]) -> str:
    """The verdict on the pretrained arm that dev likes best, a sentence an entry."""
    said = []
    for entry in found:
        if best := contrasts(entry)[:1]:
            sentence = verdict(best[0], names(entry), entry["rate"])
        else:
            first, rate = entry["arms"][0], entry["rate"]
            sentence = f"Nothing is compared; {first['arm']} has {'the lowest' if entry['split'] == 'dev' else 'a'} "
            sentence += f"{rate}{' on dev' if entry['split'] == 'dev' else ''}, {first['wer']:.2f} %."
        said.append(f"<p>{escape(sentence)}<br><small>{escape(title(entry))}</small></p>")
    return f'<div class="lead">{"".join(said)}</div>'


def _said(source: str) -> str:
    """Where the numbers above come from."""
    return f'<p class="soft">From {_code(source)}.</p>\n'


def _code(text: object) -> str:
    return f"<code>{escape(str(text))}</code>"


def _table(header: Iterable[str], table: Iterable[Iterable[str]], left: int = 2) -> str:
    """Cells are HTML; all but the first `left` columns are numbers."""

    def row(cells: Iterable[str], tag: str) -> str:
        kinds = (f'{tag} class="left"' if i < left else tag for i in range(1000))
        return "<tr>" + "".join(f"<{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=False)) + "</tr>\n"

    lines = row(header, "th") + "".join(row(cells, "td") for cells in table)
    return f'<div class="scroll"><table>\n{lines}</table></div>\n'


def _section(section: Section) -> str:
    caption = re.sub(r"`(.+?)`", r"<code>\1</code>", escape(section.caption))
    table = _table(map(escape, section.header), (map(escape, row) for row in section.rows))
    return (f"<p>{caption}</p>\n" if caption else "") + table


def _entry(entry: dict) -> str:
    """What RESULTS.md has of an entry."""
    said = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in verdicts(entry))
    tables = "".join(map(_section, sections(entry)))
    return f"<h3>{escape(title(entry))}</h3>\n{tables}" + (f"<ul>\n{said}</ul>\n" if said else "") + _said("results.json")


def _pictures(directory: Path, *patterns: str) -> str:
    found = [_svg(path.read_text(encoding="utf-8")) for each in patterns for path in sorted(directory.glob(each))]
    return f'<div class="pictures">{"".join(found)}</div>\n' if found else ""


def _svg(drawn: str) -> str:
    """A picture of matplotlib's for a page: without what only a file needs, in the page's colors."""
    inner = re.sub(r"(?s)^.*?<svg[^>]*>|<metadata>.*?</metadata>", "", drawn)
    inner = re.sub(r'<g id="[^"]*"', "<g", inner)  # which would be there once a picture
    inner = re.sub(r"#[0-9a-f]{6}\b", lambda match: COLORS.get(match[0], match[0]), inner)
    box = re.search(r'viewBox="[^"]*"', drawn)[0]
    return f'<figure><div class="scroll"><svg {box} role="img">{inner}</div></figure>\n'


def _errors(number: int, entry: dict, cells: list[Cell], directory: Path) -> str:
    named, found = names(entry), rows(entry, cells)
    pictures = _pictures(directory, f"errors-{number}.svg", f"speakers-{number}-*.svg", f"groups-{number}-*.svg")
    columns = []
    for row in entry["arms"]:
        top = confusions(found[row["arm"], row["signature"]])[:CONFUSIONS]
        columns.append([f"{count:.1f} {escape(r)} → {escape(h)}" for r, h, count in top])
    length = max(map(len, columns))
    table = zip(*(column + [""] * (length - len(column)) for column in columns), strict=True)
    header = [escape(named[row["arm"], row["signature"]]) for row in entry["arms"]]
    return (
        f"<h3>{escape(title(entry))}</h3>\n{pictures}"
        + _said("results.json, and per_spk and per_group of the score directories")
        + "<p>The most frequent confusions of each arm, and how often a seed makes them; *** is no word:</p>\n"
        + _table(header, table, left=len(header))
        + _said("confusions of the score directories")
    )


def _utterances(found: list[dict], cells: list[Cell], data: dict[str, str]) -> str:
    """To read and to hear, of the first entry with a comparison; `data` are the data directories by scores."""
    for entry in found:
        for c in contrasts(entry)[:1]:
            named, own = names(entry), rows(entry, cells)
            arm, baseline = named[c["arm"], c["signature"]], named[c["baseline"], c["baseline_signature"]]
            cell = own[c["arm"], c["signature"]][0]
            held = {u.id: u for u in manifest.read(Path(data[str(cell.score_dir.parent)]) / cell.split)}
            seeds = " and ".join(map(str, c["matched_pairs"]["seeds"][::-1]))
            parts = [
                f"<p>{escape(title(entry))}. Numbers of errors are means over seeds; the words are those of seeds {seeds} "
                f"of {escape(baseline)} and {escape(arm)}, those of median dev error. "
                "<mark>substituted</mark>, <del>***</del> deleted, <ins>inserted</ins></p>\n"
            ]
            for what, changed in zip(("rose", "fell"), changes(c, own), strict=True):
                parts.append(f"<h3>Errors {what} most from {escape(baseline)} to {escape(arm)}</h3>\n")
                parts += [_utterance(one, baseline, arm, held[one.arm.id]) for one in changed] or ["<p>None.</p>\n"]
            return "".join(parts) + _said("per_utt of the score directories")
    return ""


def _utterance(one: Change, baseline: str, arm: str, utterance: manifest.Utterance) -> str:
    columns = [("reference", escape(baseline), escape(arm))]
    columns += [
        (f'<span class="gap">{escape(word)}</span>' if word == "***" else escape(word), *map(_heard, both))
        for word, *both in one.columns
    ]
    words = "".join(f"<span>{''.join(f'<span>{word}</span>' for word in column)}</span>" for column in columns)
    return (
        f'<div class="utterance"><p><b>{escape(one.arm.id)}</b>: {one.before:.1f} to {one.after:.1f} errors '
        f'in {len(one.arm.reference)}</p>\n<div class="words">{words}</div>\n{_player(utterance)}</div>\n'
    )


def _heard(heard: Heard) -> str:
    word, op = heard
    return f"<{TAGS[op]}>{escape(word)}</{TAGS[op]}>"


def _player(utterance: manifest.Utterance) -> str:
    """The audio, as MP3, which every browser plays and which, unlike Ogg, is the same bytes each time."""
    import soundfile

    part = (utterance.start, utterance.duration) if utterance.recording else ()
    try:
        samples = audio.read(utterance.audio, SAMPLE_RATE, *part, resample=True)
    except InputError:
        return '<p class="soft">its audio is not at hand any more</p>'
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.8)
    return f'<audio controls preload="none" src="{_embedded(file, "audio/mpeg")}"></audio>'


def _embedded(file: io.BytesIO, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _reconstructions(directory: Path) -> str:
    from matplotlib.image import imread, imsave

    figures = ""
    for path in sorted(directory.glob("reconstruction-*.png")):
        file = io.BytesIO()
        imsave(file, imread(path), format="webp", pil_kwargs={"quality": 80})  # an eighth of a PNG
        arm = path.stem.split("-")[1]
        alt = f"reconstruction by {arm}"
        figures += f'<figure><img alt="{escape(alt)}" src="{_embedded(file, "image/webp")}">'
        figures += f"<figcaption>{escape(arm)}</figcaption></figure>\n"
    return figures and f'<div class="pictures">{figures}</div>\n' + _said("reconstruction.png of the bottlenecks")


def _cost(entry: dict) -> str:
    named = names(entry)
    least = min(row["device_seconds"] for row in entry["arms"]) or 1
    table = [
        [
            escape(named[row["arm"], row["signature"]]), f"{row['parameters']:,}", f"{row['updates']:,}",
            f"{row['device_seconds'] / 60:.1f}", f"{row['device_seconds'] / least:.1f}", f"{row['wer']:.2f}",
        ]
        for row in entry["arms"]
    ]  # fmt: skip
    header = ("arm", "parameters", "updates", "device minutes", "times the least", f"{entry['rate']} %")
    return f"<h3>{escape(title(entry))}</h3>\n" + _table(header, table, left=1)


def _provenance(found: list[dict], listed: list[dict], commit: str | None) -> str:
    """Commits, settings and directories of every cell, and what was scored."""
    text = f"<p>This page was written at commit {_code(commit or 'unknown')}, as RESULTS.md and results.json beside it.</p>\n"
    prints = [[escape(title(entry)), _code(entry["reference"]["sha256"])] for entry in found]
    text += _table(("scored", "SHA-256 of the sorted lines of ref.trn"), prints)
    text += "<p>A rate is the mean over seeds of errors / words in percent, summed over the lines of <code>per_spk</code> in "
    text += "the score directory's folder of that split. The print is that of <code>LC_ALL=C sort ref.trn | head -c -1 | sha256sum</code>.</p>\n"
    table = []
    for cell in listed:
        dirs = cell["dirs"]
        markers = [read_marker(dirs[key]) for key in MADE if dirs.get(key)]
        commits = dict.fromkeys(str(marker["commit"]) for marker in markers if marker)
        table.append(
            [escape(cell["arm"]), str(cell["seed"]), *map(_code, (cell["signature"], cell["settings"] or "-"))]
            + [" ".join(_code(one[:12] + "+" * one.endswith("+")) for one in commits) or "-"]
            + [_code(dirs.get(key) or "-") for key in ("data", "pretrain", "score")]
        )
    header = ("arm", "seed", "signature", "settings", "commit", "data", "pretraining", "scores")
    return text + _table(header, table, left=len(header))
