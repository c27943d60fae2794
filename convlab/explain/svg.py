"""Pictures for pages, as SVG that stands in the HTML: blocks over the outputs they make, a launch's grid and the warps
of one of its blocks, and the roofline."""

import io
import math

from .picture import Picture

WIDTH, HEIGHT = 640, 220  # at most, of what is drawn to scale
MOST_ACROSS, MOST_DOWN = 24, 10  # tiles or blocks that are drawn of a long row, of a column
INSIDE, FIRST, OUTSIDE, INK = "#dbe7f3", "#4477aa", "#ee6677", "#33404d"
WARPS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377")  # Tol's, told apart by all eyes
WARP = 32

_HATCH = (
    f'<defs><pattern id="outside" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    f'<rect width="6" height="6" fill="white"/><rect width="2" height="6" fill="{OUTSIDE}"/></pattern></defs>'
)


def _svg(width: float, height: float, label: str, *parts: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )


def _rect(x, y, width, height, fill, title="", stroke=INK) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}" stroke="{stroke}" '
        f'stroke-width="0.6"><title>{title}</title></rect>'
    )


def _text(x, y, words) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" fill="{INK}">{words}</text>'


def _of(shown: int, there: int, what: str) -> str:
    what += "s" * (there != 1)
    return f"{there:,} {what}" if shown == there else f"{shown} of {there:,} {what}"


def blocks(picture: Picture) -> str:
    """The first tiles of a launch to scale: one block's in the strong colour, hatched what lies beyond the edges. Empty
    where nothing is drawn."""
    if not picture.tile:
        return ""
    tile_rows, tile_columns = picture.tile
    down, across = -(-picture.rows // tile_rows), -(-picture.columns // tile_columns)
    rows, columns = min(down, MOST_DOWN), min(across, MOST_ACROSS)
    high = min(HEIGHT / rows, 44.0)
    wide = min(WIDTH / columns, max(high * tile_columns / tile_rows, 14.0))
    parts = [
        _HATCH,
        f'<rect x="1" y="1" width="{columns * wide:.1f}" height="{rows * high:.1f}" fill="url(#outside)"/>',
    ]
    inside_wide = min(picture.columns / tile_columns, columns) * wide
    inside_high = min(picture.rows / tile_rows, rows) * high
    parts.append(_rect(1, 1, inside_wide, inside_high, INSIDE))
    for i in range(rows):
        for j in range(columns):
            strong = not i and not j
            fill = FIRST if strong else "none"
            parts.append(_rect(1 + j * wide, 1 + i * high, wide, high, fill, f"block {i * across + j}"))
    said = f"{_of(rows, down, 'row')} of tiles, {_of(columns, across, 'column')}"
    parts.append(_text(1, rows * high + 17, said))
    return _svg(max(columns * wide + 2, 420), rows * high + 24, "blocks over the outputs", *parts)


def launch(grid: tuple[int, int, int], block: tuple[int, int, int]) -> str:
    """The grid's blocks, and the threads of one, coloured by warp: 32 threads in a row of threadIdx.x, then of y."""
    (gx, gy, gz), (bx, by, bz) = grid, block
    columns, rows = min(gx, MOST_ACROSS), min(gy, MOST_DOWN)
    side = min(18.0, WIDTH / 2 / columns, HEIGHT / rows)
    parts = [
        _rect(1 + j * side, 1 + i * side, side, side, FIRST if not i and not j else INSIDE, f"block ({j},{i},0)")
        for i in range(rows)
        for j in range(columns)
    ]
    left, cell = 1 + columns * side + 60, min(12.0, 300 / bx, HEIGHT / by)
    parts.append(_text(left - 42, 14, "block"))
    for y in range(by):
        for begin in range(bx):
            warp, before = (y * bx + begin) // WARP, (y * bx + begin - 1) // WARP
            if begin and warp == before:
                continue
            end = min(bx, (warp + 1) * WARP - y * bx)
            parts.append(
                _rect(
                    left + begin * cell,
                    1 + y * cell,
                    (end - begin) * cell,
                    cell,
                    WARPS[warp % len(WARPS)],
                    f"warp {warp}",
                )
            )
    bottom = max(rows * side, by * cell) + 18
    beside = f", the same {gz:,} times (z)" if gz > 1 else ""
    deep = f", the same {bz} times (z)" if bz > 1 else ""
    warps = -(-bx * by * bz // WARP)
    parts.append(_text(1, bottom, f"{_of(columns, gx, 'block')} in a row, {_of(rows, gy, 'row')}{beside}"))
    parts.append(
        _text(1, bottom + 16, f"a block of {bx} x {by} threads{deep}: {warps} warp{'s' * (warps > 1)}, a colour each")
    )
    return _svg(max(left + bx * cell + 2, 420), bottom + 22, "grid and block", *parts)


def figure(drawn) -> str:
    """A matplotlib figure as an SVG element, its words as text."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "convlab"}):
        drawn.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return out.getvalue()[out.getvalue().index("<svg") :]


def heat(share: float) -> str:
    """A colour from white to red for a share of a whole."""
    level = math.sqrt(min(max(share, 0.0), 1.0))
    return f"rgb(255, {255 - round(130 * level)}, {255 - round(165 * level)})"
