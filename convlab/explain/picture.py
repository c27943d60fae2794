"""The picture of a launch as courses draw it: the blocks over the outputs they make, and what of them falls over the
edges."""

import math
from dataclasses import dataclass

WIDE, HIGH = 9, 2  # characters inside a tile
FIRST_COLUMNS, FIRST_ROWS = 5, 2  # tiles that are drawn of a long row, or column, beside the last
OUTPUT = {"forward": "y", "dgrad": "dx", "wgrad": "dw"}
ROWS = {"forward": "k", "dgrad": "c", "wgrad": "k"}
COLUMNS = {"forward": "n, p, q", "dgrad": "n, h, w", "wgrad": "c, r, s"}
STEPS = {"forward": "c, r, s", "dgrad": "k, r, s", "wgrad": "n, p, q"}


@dataclass(frozen=True)
class Picture:
    """title: what is drawn. rows, columns: of what is covered; tile: rows and columns of what a block covers of it, and
    None where the plan does not say, so that nothing is drawn."""

    title: str
    rows: int = 0
    columns: int = 0
    tile: tuple[int, int] | None = None

    def __str__(self):
        return "\n".join([self.title, *(_drawn(self.rows, self.columns, *self.tile) if self.tile else [])])


def picture_of(plan: dict, problem, pass_: str) -> Picture:
    """Of the launch that a rung plans (Algorithm.plan) for a pass of a problem."""
    name, (x, y, z) = OUTPUT[pass_], plan["grid"]
    shape = {"forward": problem.y, "dgrad": problem.x, "wgrad": problem.w}[pass_]
    outputs = math.prod(shape)
    if plan["plane"]:
        rows, columns = plan["plane"]
        if not plan["tile"]:
            title = (
                f"a plane of {name}, {shape[2]} x {shape[3]}, in runs of {rows} x {columns}, one a thread; a block has {plan['threads']} of "
                "them, all of one map, and goes on with its next image"
            )
            return Picture(title, shape[2], shape[3], (rows, columns))
        maps = plan["tile"][0]
        title = (
            f"a plane of {name}, {shape[2]} x {shape[3]}, in tiles of {rows} x {columns}; a block makes them of {_count(maps, 'map')}, "
            "a thread one place of each"
        )
        return Picture(title, shape[2], shape[3], (rows, columns))
    if plan["product"] and plan["product"][0]:
        M, N, K = plan["product"]
        tile = plan["tile"]
        title = (
            f"{name} as a matrix, {M:,} rows ({ROWS[pass_]}) x {N:,} columns ({COLUMNS[pass_]}), in tiles of {tile[0]} x {tile[1]}; "
            f"sums of {K:,} ({STEPS[pass_]}), {tile[2]} at a time{_parts(plan)}"
        )
        return Picture(title, M, N, (tile[0], tile[1]))
    if plan["tile"]:  # whole images, or even parts of them
        maps, images, parts = plan["tile"][0], plan["images"], f" in {x} parts" if x > 1 else ""
        title = (
            f"{name} as {_count(shape[1], 'map')} x {_count(shape[0], 'image')}{parts}: a block makes {_count(maps, 'map')} of "
            f"{_count(images, 'image')}"
            + (f", and goes on to others {y} blocks further" if y * images < shape[0] else "")
        )
        return Picture(title, shape[1], shape[0] * x, (maps, images))
    if plan["slices"] > 1 or y * z > 1:
        return Picture(
            f"{x:,} slices of the sum (across) for {y * z:,} parts of {name} (down), a block each", y * z, x, (1, 1)
        )
    in_a_row, threads = f"{name} as {outputs:,} elements in a row: ", plan["threads"]
    if x >= outputs:
        return Picture(f"{in_a_row}a block each, whose {threads} threads share the sum", 1, outputs, (1, 1))
    if x == -(-outputs // threads):
        return Picture(f"{in_a_row}{threads} a block, one a thread", 1, outputs, (1, threads))
    a_block = round(outputs / x)
    return Picture(f"{outputs:,} elements of {name}, about {a_block:,} a block; which ones, the plan does not say")


def _parts(plan):
    z = plan["grid"][2]
    if z == 1:
        return ""
    return (
        f"; {z} such, each a part of the sum"
        if plan["slices"] == z
        else f"; {z} such: groups, residue classes or slices of the sum"
    )


def _count(n, what):
    return f"{n:,} {what}" + "s" * (n != 1)


def _drawn(rows, columns, tile_rows, tile_columns):
    """Lines: the first tiles and the last, with the numbers of their blocks; what lies outside is hatched."""
    down, across = -(-rows // tile_rows), -(-columns // tile_columns)
    shown_x, shown_y = _shown(across, FIRST_COLUMNS), _shown(down, FIRST_ROWS)
    high = HIGH if down > 1 or tile_rows > 1 else 1
    margin = len(f"{(down - 1) * tile_rows:,}") + 2
    heads = [" " * (WIDE + 1) if j is None else f"{j * tile_columns:<{WIDE + 1},}" for j in shown_x]
    lines = [" " * (margin + 1) + "".join(heads).rstrip(), " " * margin + _rule(shown_x, "┌┬┐")]
    for place, i in enumerate(shown_y):
        if i is None:
            lines.append(" " * margin + _gap(shown_x))
            continue
        inside_rows = _inside(rows, i, tile_rows, high)
        for line in range(high):
            cells = []
            for j in shown_x:
                if j is None:
                    cells.append(f"{'···':^{WIDE}}")
                    continue
                inside = _inside(columns, j, tile_columns, WIDE) if line < inside_rows else 0
                text = f" {i * across + j}" if line == 0 else ""
                cells.append(f"{text:<{inside}}"[: max(inside, len(text) * (inside > 0))].ljust(WIDE, "░")[:WIDE])
            lines.append(
                (f"{i * tile_rows:>{margin - 1},} " if line == 0 else " " * margin) + "│" + "│".join(cells) + "│"
            )
        last = place == len(shown_y) - 1
        lines.append(" " * margin + _rule(shown_x, "└┴┘" if last else "├┼┤"))
    return lines


def _shown(count, first):
    """Indices of the tiles to draw, None for those left out."""
    return list(range(count)) if count <= first + 1 else [*range(first), None, count - 1]


def _inside(extent, i, tile, characters):
    """How many of a tile's characters lie inside: one at least, and all only where nothing lies outside."""
    share = min(extent - i * tile, tile) / tile
    return characters if share == 1 else min(max(round(share * characters), 1), characters - 1)


def _rule(shown, corners):
    left, between, right = corners
    return left + between.join("─" * WIDE for _ in shown) + right


def _gap(shown):
    return " " + " ".join(f"{'···':^{WIDE}}" for _ in shown)
