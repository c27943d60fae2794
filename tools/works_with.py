"""The table in docs/compatibility.md of what convlab works with, from the tests that show it.

    python -m tools.works_with            runs them, those that take long too, and prints the table
    python -m tools.works_with --write    puts it into the page

A test says what it shows: @pytest.mark.works_with("what"). Several may show the same; it works if all of them pass.
What does not work is an xfail that says why. What only a GPU shows works if the tests passed there, by the report that
docs/performance.md is made from.
"""

import argparse
import importlib
import json
import os
import re
import sys
from pathlib import Path

import pytest

from convlab._files import write
from tools import run

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
BLOCK = re.compile(r"(<!-- works with -->\n).*?(<!-- end of works with -->)", re.DOTALL)
NOT_SHOWN, ON_GPUS = "only a GPU shows it", "only a machine with several GPUs shows it"


def shown_on_a_gpu():
    """The GPU on which the report that docs/performance.md names ran all tests, or None; and the names of those that
    failed there, of which pytest's last lines have one each."""
    from tools import figures

    source = figures.source_of(figures.PAGE.read_text(), figures.GPU)
    report = json.loads((ROOT / source).read_text()) if source else {"steps": {}}
    step = report.get("steps", {}).get("test", {"ok": False, "tail": ""})
    failed = set(re.findall(r"^FAILED \S+::(\w+)", step["tail"], re.MULTILINE))
    return (report["gpu"] if step["ok"] or failed else None), failed


def rows():
    """{what: its verdict, if the tests that show it pass}."""
    sys.path[:0] = {str(ROOT / "tests"), str(ROOT / "tools")} - set(sys.path)  # as pytest has it
    found = {}
    gpu, failed = shown_on_a_gpu()
    for path in sorted((ROOT / "tests").glob("test_*.py"), key=lambda path: (path.stem != "test_works_with", path)):
        if "works_with" in path.read_text():
            module = importlib.import_module(path.stem)
            for name, function in vars(module).items():
                if name.startswith("test_"):
                    marks = {mark.name: mark for mark in [*marks_of(module), *marks_of(function)]}
                    if "works_with" in marks:
                        found.setdefault(marks["works_with"].args[0], set()).add(
                            f"yes, on an {gpu}"
                            if (says := verdict(marks)) == NOT_SHOWN and gpu and name not in failed
                            else says
                        )
    for what, verdicts in found.items():
        for on_a_gpu in sorted((v for v in verdicts if v == NOT_SHOWN or v.startswith("yes, on")), reverse=True):
            verdicts.discard(on_a_gpu if len(verdicts) > 1 else None)  # a test on the CPU is enough
        assert len(verdicts) == 1, f"tests of {what!r} do not agree: {verdicts}"
    return {what: verdicts.pop() for what, verdicts in found.items()}


def marks_of(thing):
    marks = getattr(thing, "pytestmark", [])
    return marks if isinstance(marks, list) else [marks]


def verdict(marks):
    if "xfail" in marks:
        assert marks["xfail"].kwargs["strict"], "an xfail that is not strict would go on when it works"
        return "no: " + marks["xfail"].kwargs["reason"]
    return "yes" if "cuda" not in marks else ON_GPUS if marks["works_with"].kwargs.get("gpus", 1) > 1 else NOT_SHOWN


def updated(text, rows):
    """The page with its table written anew."""
    assert BLOCK.search(text), "the page has no block between <!-- works with --> and <!-- end of works with -->"
    lines = ["| | works |", "| --- | --- |"] + ["| {} | {} |".format(*row) for row in rows.items()]
    return BLOCK.sub(lambda match: match.group(1) + "\n".join(lines) + "\n" + match.group(2), text)


class Outcomes:
    """A pytest plugin: what the tests have shown, and which of them failed. A skipped one shows nothing."""

    def __init__(self):
        self.what, self.shown, self.failed = {}, set(), []

    def pytest_itemcollected(self, item):
        for mark in item.iter_markers("works_with"):
            self.what[item.nodeid] = mark.args[0]

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call" and (report.passed or hasattr(report, "wasxfail")):
            self.shown.add(self.what[report.nodeid])


def check(rows):
    """Runs the tests; ends the program if they do not show what they say."""
    outcomes = Outcomes()
    pytest.main(
        ["-q", "-p", "no:cacheprovider", "-m", "works_with and (long or not long)", str(ROOT / "tests")],
        plugins=[outcomes],
    )
    not_shown = outcomes.failed or [
        what for what, verdict in rows.items() if verdict.split(":")[0] in ("yes", "no") and what not in outcomes.shown
    ]
    if not_shown:
        sys.exit(f"convlab: the tests do not show what they say: {'; '.join(not_shown)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/compatibility.md")
    args = parser.parse_args()
    os.chdir(ROOT)
    shown = rows()
    check(shown)
    text = updated(PAGE.read_text(), shown)
    if args.write:
        write(PAGE, text)
    else:
        print(BLOCK.search(text).group())


if __name__ == "__main__":
    run(main)
