"""Answers as one page of HTML each, which needs no network: sources with what their lines ask of memory beside them, as
a heat map. Templates: convlab/pages/."""

from argparse import ArgumentTypeError
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from .._command_line import output_file
from ..simulator import Traffic
from . import svg, text
from .explanation import SECTOR, WAVEFRONT, Explanation

PACKAGE = Path(__file__).parent.parent


class Line(NamedTuple):
    """number, code (highlighted), for each count what share of all bytes the line moves (None: none), what it asks for
    in the first of them, and what was found there."""

    number: int
    code: str
    shares: list[float | None]
    asks: list[str]
    found: list


class Listing(NamedTuple):
    file: str
    lines: list[Line]
    hottest: float


PACKAGES = ("jinja2", "pygments", "matplotlib")


def page_file(path: str) -> Path:
    """A type for argparse: a file that can be written, where there are the packages that pages take."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ArgumentTypeError(f"a page needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    return output_file(path)


def rendered(template: str, **values) -> str:
    """A template of convlab/pages/."""
    import jinja2
    import pygments.formatters

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PACKAGE / "pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.0f} %" if share >= 0.005 else "< 1 %"
    environment.filters["heat"] = svg.heat
    code_style = pygments.formatters.HtmlFormatter(style="friendly").get_style_defs(".code")
    return environment.get_template(template).render(code_style=code_style, **values)


def highlighted(text: str) -> list[str]:
    """The lines of a CUDA source, as HTML."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import CudaLexer

    return highlight(text, CudaLexer(stripnl=False), HtmlFormatter(nowrap=True)).splitlines()


def listings(counts: list[list[Traffic]], folder: Path, found=(), first: Path | None = None) -> list[Listing]:
    """The sources that have counts or findings, the hottest first; `first` before them.

    counts: rows of traffic, a column each. folder: what the names of files of one's own start from. found: (file, line, finding).
    """
    totals = [sum(map(moved, rows)) or 1 for rows in counts]
    named = [*(row.file for rows in counts for row in rows), *(file for file, *_ in found)]
    paths = {file: path for file in named if (path := _path(file, folder))}
    made = []
    for path in dict.fromkeys([*([first.resolve()] if first else []), *paths.values()]):
        here = [[row for row in rows if paths.get(row.file) == path] for rows in counts]
        own = first is not None and path == first.resolve()
        name = str(first) if own else next(file for file, p in paths.items() if p == path)
        reports = [(line, finding) for file, line, finding in found if paths.get(file) == path]
        made.append(_listing(name, path, here, totals, reports))
    return sorted(made, key=lambda one: (first is None or one.file != str(first), -one.hottest))


def _path(file: str, folder: Path) -> Path | None:
    """Of a file as reports name it: beside the one that was checked, or of the sources that come with convlab."""
    roots = (folder, PACKAGE, PACKAGE.parent)
    return next((path.resolve() for root in roots if (path := root / file).is_file()), None)


def _listing(name: str, path: Path, counts, totals, found) -> Listing:
    lines = []
    for number, code in enumerate(highlighted(path.read_text(errors="replace")), 1):
        here = [[row for row in rows if row.line == number] for rows in counts]
        shares = [sum(map(moved, rows)) / total if rows else None for rows, total in zip(here, totals)]
        asks = [_asks(row) for row in here[0]] if here else []
        lines.append(Line(number, code, shares, asks, [finding for line, finding in found if line == number]))
    return Listing(name, lines, max((share or 0 for line in lines for share in line.shares), default=0))


def moved(row: Traffic) -> int:
    """Bytes that the L1 caches move for it."""
    return SECTOR * row.sectors + WAVEFRONT * row.wavefronts


def _asks(row: Traffic) -> str:
    cost, unit = (row.wavefronts, "wavefronts") if row.space == "shared" else (row.sectors, "sectors")
    each, ideal = cost / max(row.requests, 1), row.ideal / max(row.requests, 1)
    return f"{row.access} {row.memory}: {row.requests:,} x {each:.2f} {unit}" + (
        f", ideal {ideal:.2f}" if cost > row.ideal else ""
    )


def page_of(e: Explanation) -> str:
    """The page of explain(). It takes the packages of convlab[html]."""
    from .plot import figure_of

    alone = sum(len(p.rungs) for p in e.passes) == 1
    passes = [
        {
            "name": p.name,
            "chosen": p.chosen,
            "table": _lines(text.launch_table(p)),
            "rungs": [_rung(p, rung) for rung in p.rungs],
        }
        for p in e.passes
        if p.rungs
    ]
    counted = any(rung.counted for p in e.passes for rung in p.rungs)
    return rendered(
        "explain.html",
        title=f"{e.layer or 'A convolution'} on {e.gpu.name}",
        head=_lines(text.head(e)),
        passes=passes,
        alone=alone,
        roofline=svg.figure(figure_of(e)) if counted else "",
    )


def _rung(p, rung) -> dict:
    return {
        "name": rung.algorithm,
        "technique": rung.technique,
        "refused": rung.refused,
        "picture": "" if rung.refused else rung.picture.title,
        "blocks": "" if rung.refused else svg.blocks(rung.picture),
        "counts": _lines(text.counts(p, rung, by_line=False)) if rung.counted else "",
        "sources": listings([list(rung.counted.traffic)], PACKAGE.parent) if rung.counted else [],
    }


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(line.rstrip() for line in lines)
