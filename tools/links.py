"""Looks for links that lead nowhere in the pages of the project, README and all: to a file that is not there, or a heading.

python -m tools.links   ends with status 1 if it finds one. Links to other sites are not followed.
"""

import re
import subprocess
from pathlib import Path

from tools import run

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.M | re.S)


def anchors(page: Path) -> set[str]:
    """What GitHub and mkdocs call a page's headings."""
    headings = re.findall(r"^#+ (.+)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""

    def leads(link: str) -> bool:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        there = target.exists()
        return there and (not anchor or target.suffix != ".md" or anchor in anchors(target) | included(target))

    links = LINK.findall(CODE.sub("", page.read_text()))
    return [link for link in links if not re.match(r"[a-z]+:", link) and not leads(link)]


def included(page: Path) -> set[str]:
    """The headings of what mkdocs fills in: tools/docs_hooks.py."""
    files = re.findall(r"^<!-- \{\{ include (\S+) \}\} -->$", page.read_text(), re.M)
    return set().union(*(anchors(ROOT / file) for file in files))


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    pages = [ROOT / name for name in listed] or [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
    ]
    found = [f"{page.relative_to(ROOT)}: {link}" for page in pages if page.exists() for link in broken(page)]
    print(*[f"leads nowhere: {line}" for line in found], sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    run(main)
