"""What check and explain write as pages: whole, of themselves, with findings and counts at their lines; and how they look
in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from student_kernels import MISTAKES, changed

from convlab import check
from convlab.explain import __main__ as command
from convlab.explain import explain, page, svg
from convlab.explain.picture import Picture
from convlab.testing import check_kernel
from convlab.testing.page import page_of

pytest.importorskip("pygments")
pytest.importorskip("jinja2")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """rows: id -> texts of the cells of a source's line; below: id of a line -> what was found there."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.ids, self.links, self.rows, self.below, self.row, self.of_code = (
            [],
            set(),
            [],
            {},
            {},
            "",
            False,
        )
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        self.links += [value for name, value in attributes.items() if name in ("href", "src", "data")]
        if tag == "tr":
            self.of_code = "id" in attributes
        if tag == "tr" and self.of_code:
            self.row, self.rows[attributes["id"]] = attributes["id"], []
        if tag == "td" and self.of_code:
            self.rows[self.row].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if "td" in self.open and self.of_code:
            self.rows[self.row][-1] += data
        elif "td" in self.open and self.row:
            self.below[self.row] = self.below.get(self.row, "") + data


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """A page with a race, and one with counts: what was checked, and the page."""
    folder = tmp_path_factory.mktemp("pages")
    race, right = folder / "race.cu", folder / "basic.cu"
    race.write_text(changed("tiled", MISTAKES["no barrier after loading"].changes))
    right.write_text(changed("basic", []))
    assert check.main([str(race), "--random", "0", "--html", str(folder / "race.html")]) == 1
    report = check_kernel(right, random_cases=0)
    (folder / "right.html").write_text(page_of(report, right))
    return folder, report


def test_a_finding_stands_at_its_line(kernels):
    folder, _ = kernels
    html = (folder / "race.html").read_text()
    shown = Page(html)
    line = next(n for n, text in enumerate((folder / "race.cu").read_text().splitlines(), 1) if "sum += tile" in text)
    place = f"{folder / 'race.cu'}:{line}"
    assert "sum += tile[ty + r][tx + s] * filter[r][s];" in shown.rows[place][-1]
    assert shown.below.keys() == {place} and "race (read" in shown.below[place]
    assert f"#{place}" in shown.links and "Counts are left out" in html
    assert len(shown.rows) == len((folder / "race.cu").read_text().splitlines())


def test_counts_stand_at_their_lines(kernels):
    folder, report = kernels
    shown = Page((folder / "right.html").read_text())
    lines = (folder / "basic.cu").read_text().splitlines()
    for column, traffic in enumerate(report.traffic.values()):
        all_bytes = sum(map(page.moved, traffic))
        for number, text in enumerate(lines, 1):
            here = sum(page.moved(row) for row in traffic if row.line == number)
            share, *_, code = (cells := shown.rows[f"{folder / 'basic.cu'}:{number}"])[column], cells[-1]
            assert code == text
            assert share == (
                f"{100 * here / all_bytes:.0f} %" if here >= 0.005 * all_bytes else "< 1 %" if here else ""
            )
    assert "read input: " in "".join(cells[len(report.traffic)] for cells in shown.rows.values())
    assert {"roofline"} <= shown.ids and "LeNet C3" in (folder / "right.html").read_text()


def test_a_page_needs_nothing_else(kernels):
    """No scripts, no fonts, no pictures from elsewhere: what is linked lies on the page."""
    folder, _ = kernels
    for path in folder.glob("*.html"):
        html, shown = path.read_text(), Page(path.read_text())
        assert all(link.startswith("#") for link in shown.links) and "<script" not in html and "@import" not in html
        assert {link[1:] for link in shown.links} <= shown.ids
        named = {word for word in re.findall(r"https?://[^\s\"'<]+", html) if "www.w3.org" not in word}
        assert not named and "url(http" not in html


def test_the_page_of_explain(tmp_path, capsys):
    command.main(["lenet.c3", "--algo", "direct", "--pass", "forward", "--html", str(tmp_path / "e.html")])
    shown = Page((tmp_path / "e.html").read_text())
    counted = explain("lenet.c3", "direct", passes=["forward"], count=True).passes[0].rungs[0].counted
    lines = {f"{row.file}:{row.line}" for row in counted.traffic}
    assert lines and {name for name, cells in shown.rows.items() if cells[0]} == lines
    assert all("x" in shown.rows[name][1] for name in lines) and "roofline" in shown.ids
    assert "wrote" in capsys.readouterr().err


def test_a_page_without_the_packages_says_what_to_install(monkeypatch, tmp_path, capsys):
    """Before anything is checked or counted."""
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "pygments" else name)
    for main, what in ((command.main, "lenet.c3"), (check.main, "kernel.cu")):
        with pytest.raises(SystemExit):
            main([what, "--html", str(tmp_path / "e.html")])
        assert "a page needs pygments: pip install pygments" in capsys.readouterr().err


def test_pictures_are_to_scale():
    """6,400 columns in tiles of 128 are 50, of which 24 are drawn; of 10 rows in tiles of 16 a third lies outside."""
    drawn = svg.blocks(Picture("", 10, 6400, (16, 128)))
    assert drawn.count("<title>block ") == 24 and "24 of 50 columns" in drawn
    hatched, inside = (
        float(re.search(rf'height="([\d.]+)" fill="{fill}"', drawn)[1]) for fill in (r"url\(#outside\)", svg.INSIDE)
    )
    assert inside / hatched == pytest.approx(10 / 16, abs=0.01)
    drawn = svg.launch((3, 2, 5), (20, 4, 1))  # warps of 32 threads: 20 + 12, 8 + 20 + 4, 16
    assert (
        re.findall(r"<title>warp (\d)", drawn) == ["0", "0", "1", "1", "1", "2"] and drawn.count("<title>block (") == 6
    )
    assert "the same 5 times" in drawn and "3 warps" in drawn


# ---- in a browser -----------------------------------------------------------------------------------------------------


def browse(path: Path, *options: str) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,2400"]
    home = path.parent / "browser"
    done = subprocess.run(
        [BROWSER, *flags, f"--user-data-dir={home}", *options, path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not BROWSER, reason="needs chromium")
@pytest.mark.parametrize("name", ["race", "right"])
def test_in_a_browser(name, kernels, tmp_path):
    """Nothing runs over the page's edge, the fault is seen as a red box below its line, the hottest line as the warmest."""
    image = pytest.importorskip("PIL.Image")
    folder, report = kernels
    html = (folder / f"{name}.html").read_text()
    line = next(iter(Page(html).below), None)
    if name == "right":
        first = next(iter(report.traffic.values()))
        line = max(first, key=page.moved).line
        line = f"{folder / 'basic.cu'}:{line}"
    ask = (
        "<script>const row = document.getElementById('%s'), at = e => { const r = e.getBoundingClientRect(); "
        "return [r.left, r.top, r.right, r.bottom].map(Math.round).join(',') };"
        "document.title = [document.documentElement.scrollWidth, innerWidth, at(row.cells[0]), at(row.nextElementSibling)].join(';')</script>"
    )
    asking = tmp_path / "asking.html"
    asking.write_text(html.replace("</body>", ask % line + "</body>"))
    title = re.search("<title>(.*?)</title>", browse(asking, "--dump-dom"))[1]
    wide, window, cell, below = title.split(";")
    assert int(wide) <= int(window) == 1400
    browse(folder / f"{name}.html", f"--screenshot={tmp_path / 'page.png'}")
    with image.open(tmp_path / "page.png") as picture:
        colours = {colour[:3]: n for n, colour in picture.getcolors(1 << 20)}
        assert len(colours) > 20  # letters and their edges
        left, top, right, bottom = map(int, (below if name == "race" else cell).split(","))
        seen = picture.crop((left, top, right, bottom)).getcolors(1 << 20)
        most = max(seen)[1][:3]
    if name == "race":
        assert most == (0xFD, 0xEC, 0xEA) and bottom - top > 100
    else:
        share = sum(page.moved(row) for row in first if f"{row.file}:{row.line}" == line) / sum(map(page.moved, first))
        assert most == tuple(map(int, re.findall(r"\d+", svg.heat(share)))) and most[1] < 160
