"""The report as one page of HTML that opens without a network: index.html, from what lies beside it.

Whatever comes from data or settings is escaped. The numbers are those of results.json.
"""

import io
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

from local.differences import confusions, contrasts, rows
from local.listening import embedded, utterances
from local.marker import read_marker
from local.results import Cell
from local.tables import Section, names, sections, title, verdict, verdicts

CONFUSIONS = 10  # of each arm
MADE = ("pretrain", "bottleneck", "finetune", "decode", "score")
# What matplotlib draws with, as the page names it, so that it follows light and dark.
PALETTE = ("1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "8c564b", "e377c2", "7f7f7f", "bcbd22", "17becf")
COLORS = {f"#{color}": f"var(--c{number})" for number, color in enumerate(PALETTE)}
COLORS |= {"#000000": "currentColor", "#b0b0b0": "var(--rule)"}
BY_HAND = (
    "A rate is the mean over seeds of errors in percent of the reference, both summed over the lines of `per_spk`, "
    "which lies beside `per_utt` and `ref.trn` in the folder of the split in the directory of the scores; a difference "
    "is that of two rates. The digest is that of `LC_ALL=C sort ref.trn | head -c -1 | sha256sum`. `done.json` in each "
    "directory has its whole configuration."
)


def render(found: list[dict], cells: list[Cell], listed: list[dict], directory: Path, commit: str | None) -> str:
    """The page of results.json's content `found`, whose pictures lie in `directory`.

    `cells` are what `found` was made of, `listed` the sweep's list of them, with their directories.
    """
    corpora = ", ".join(dict.fromkeys(entry["corpus"] for entry in found))
    heading = escape(f"{corpora}: does pretraining lower the {found[0]['rate']}?")
    data = {one["dirs"]["score"]: one["dirs"]["data"] for one in listed}
    parts = {
        "Results": "".join(map(_entry, found)),
        "Curves": _with_source(
            _pictures(directory, "*_hours-*.svg", "curves-*.svg"), "`results.json`, and `history.json` of each training"
        ),
        "Errors": "".join(_errors(number, entry, cells, directory) for number, entry in enumerate(found, 1)),
        "Utterances": _with_source(utterances(found, cells, data), "`per_utt` of the scores"),
        "Reconstructions": _with_source(_reconstructions(directory), "`reconstruction.png` of the first seed"),
        "Cost": _with_source("".join(map(_cost, found)), "`results.json`"),
        "Provenance": _provenance(found, listed, commit),
    }
    parts = {name: part for name, part in parts.items() if part}
    links = "".join(f'<a href="#{name}">{name}</a>' for name in parts)
    body = f"<h1>{heading}</h1>\n{_lead(found)}\n<nav>{links}</nav>\n"
    body += "\n".join(f'<h2 id="{name}">{name}</h2>\n{part}' for name, part in parts.items())
    skeleton = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return skeleton.substitute(title=heading, body=body)


def _lead(found: list[dict]) -> str:
    """The verdict on the pretrained arm that is best on dev, against `none` and its own control, an entry each."""
    said = []
    for entry in found:
        first, on_dev = entry["arms"][0], entry["split"] == "dev"
        if best := contrasts(entry)[:1]:
            row = best[0]["arm"], best[0]["signature"]
            controls = [c for c in entry["comparisons"] if c["baseline"] == "random" and c not in best]
            best += [c for c in controls if (c["arm"], c["signature"]) == row]
            sentence = " ".join(verdict(c, names(entry), entry["rate"]) for c in best)
        else:  # nothing is compared; of dev, rows are in the order of the rate that chooses
            name = names(entry)[first["arm"], first["signature"]]
            by_characters = entry.get("best") == "cer"
            rate, value = ("CER", first["cer"]) if by_characters else (entry["rate"], first["wer"])
            sentence = f"{name} has {'the lowest' if on_dev else 'a'} {rate}, {value:.2f} %; "
            sentence += "dev chooses, and nothing is claimed." if on_dev else "it is compared with nothing."
        said.append(f"<p>{escape(sentence)}<br><small>{escape(title(entry))}</small></p>")
    return f'<div class="lead">{"".join(said)}</div>'


def _with_source(part: str, source: str) -> str:
    """A part, if there is anything in it, and where its numbers come from."""
    return part and f'{part}<p class="soft">From {_prose(source)}.</p>\n'


def _prose(text: str) -> str:
    """Text whose `names` are code."""
    return re.sub(r"`(.+?)`", r"<code>\1</code>", escape(text))


def _code(text: object) -> str:
    return f"<code>{escape(str(text))}</code>"


def _table(header: Iterable[str], table: Iterable[Iterable[str]], left: int = 2) -> str:
    """Cells are HTML; all but the first `left` columns are numbers."""

    def row(cells: Iterable[str], tag: str) -> str:
        marked = ""
        for i, cell in enumerate(cells):
            kind = ' class="left"' if i < left else ""
            marked += f"<{tag}{kind}>{cell}</{tag}>"
        return f"<tr>{marked}</tr>\n"

    lines = row(header, "th") + "".join(row(cells, "td") for cells in table)
    return f'<div class="scroll"><table>\n{lines}</table></div>\n'


def _section(section: Section) -> str:
    caption = f"<p>{_prose(section.caption)}</p>\n" if section.caption else ""
    return caption + _table(map(escape, section.header), (map(escape, row) for row in section.rows))


def _entry(entry: dict) -> str:
    """What RESULTS.md has of an entry."""
    said = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in verdicts(entry))
    tables = "".join(map(_section, sections(entry))) + (f"<ul>\n{said}</ul>\n" if said else "")
    return f"<h3>{escape(title(entry))}</h3>\n" + _with_source(tables, "`results.json`")


def _pictures(directory: Path, *patterns: str) -> str:
    found = ""
    for pattern in patterns:
        for path in sorted(directory.glob(pattern), key=lambda path: (len(path.name), path.name)):
            found += _svg(path.read_text(encoding="utf-8"))
    return found and f'<div class="pictures">{found}</div>\n'


def _svg(drawn: str) -> str:
    """A picture of matplotlib's for a page: without what only a file needs, in the page's colors."""
    inner = re.sub(r"(?s)^.*?<svg[^>]*>|<metadata>.*?</metadata>", "", drawn)
    inner = re.sub(r'<g id="[^"]*"', "<g", inner)  # every picture has these names
    inner = re.sub(r"#[0-9a-f]{6}\b", lambda match: COLORS.get(match[0], match[0]), inner)
    box = re.search(r'viewBox="[^"]*"', drawn)[0]
    return f'<figure><div class="scroll"><svg {box} role="img">{inner}</div></figure>\n'


def _errors(number: int, entry: dict, cells: list[Cell], directory: Path) -> str:
    """Their kinds, where they became more or fewer, and the most frequent confusions."""
    named, found = names(entry), rows(entry, cells)
    pictures = _pictures(directory, f"errors-{number}.svg", f"speakers-{number}-*.svg", f"groups-{number}-*.svg")
    columns = [
        [f"{count:.1f} {escape(r)} → {escape(h)}" for r, h, count in confusions(of_row)[:CONFUSIONS]]
        for of_row in found.values()
    ]
    length = max(map(len, columns))
    table = zip(*(column + [""] * (length - len(column)) for column in columns), strict=True)
    header = [escape(named[key]) for key in found]
    return (
        f"<h3>{escape(title(entry))}</h3>\n"
        + _with_source(pictures, "`results.json`, and `per_spk` and `per_group` of the scores")
        + "<p>The most frequent confusions of each arm, and how often a seed makes them; *** is no word:</p>\n"
        + _with_source(_table(header, table, left=len(header)), "`confusions` of the scores")
    )


def _reconstructions(directory: Path) -> str:
    from matplotlib.image import imread, imsave

    figures = ""
    for path in sorted(directory.glob("reconstruction-*.png")):
        file = io.BytesIO()
        imsave(file, imread(path), format="webp", pil_kwargs={"quality": 80})  # an eighth of a PNG
        arm = escape(path.stem.split("-")[1])
        figures += f'<figure><figcaption>{arm}</figcaption><img alt="what {arm} gets and gives back" '
        figures += f'src="{embedded(file, "image/webp")}"></figure>\n'
    return figures


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
    """What was scored, and the commits, settings and directories of every cell."""
    prints = [[escape(title(entry)), _code(entry["reference"]["sha256"])] for entry in found]
    table = []
    for cell in listed:
        dirs = cell["dirs"]
        markers = (read_marker(dirs[key]) for key in MADE if dirs.get(key))
        commits = [str(marker["commit"]) for marker in markers if marker]
        commits = dict.fromkeys(one[:12] + "+" * one.endswith("+") for one in commits)
        named = [escape(cell["arm"]), str(cell["seed"])]
        named += [_code(cell[key] or "-") for key in ("signature", "settings")]
        named.append(" ".join(map(_code, commits)) or "-")
        table.append(named + [_code(dirs.get(key) or "-") for key in ("data", "pretrain", "score")])
    header = ("arm", "seed", "signature", "settings", "commit", "data", "pretraining", "scores")
    return (
        f"<p>Written at commit {_code(commit or 'unknown')}. {_prose(BY_HAND)}</p>\n"
        + _table(("scored", "SHA-256 of the sorted lines of ref.trn"), prints)
        + _table(header, table, left=len(header))
    )
