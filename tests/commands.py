"""The commands that the README, the pages of docs/ and `make help` name."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples" / "conv2d" / "README.md",
    ROOT / "tools" / "docs_hooks.py",
]
PROGRAMS = r"(?:python|make|pip|ncu|torchrun|apt)"


def commands_of(page: Path) -> list[str]:
    """What its code blocks and the code in its sentences tell to run; comments behind commands left out. A quoted
    argument may have several lines."""
    found, text = [], page.read_text()
    block = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
    for language, code in block.findall(text):
        if language in ("", "sh"):
            found += re.findall(rf"^(?:\$ )?({PROGRAMS}\b(?:'[^']*'|\"[^\"\n]*\"|[^'\"#\n])*)", code, re.M)
    found += [" ".join(command.split()) for command in re.findall(rf"`({PROGRAMS}\s[^`{{}}]+)`", block.sub("", text))]
    return [command.strip() for command in found]


def targets() -> list[str]:
    """Those of `make help`."""
    return re.findall(r'^\t@echo "(make [\w-]+)', (ROOT / "Makefile").read_text(), re.M)


COMMANDS = sorted({command for page in PAGES for command in commands_of(page)} | set(targets()))
