"""What a check says."""

from typing import NamedTuple


class Finding(NamedTuple):
    """verdict: "ok"; "note" where something is missing that not everybody needs; "fault". fix: the command that fixes
    it, or ""."""

    name: str
    verdict: str
    found: str
    fix: str = ""

    def __str__(self):
        return f"{self.verdict:6}{self.name:24}{self.found}" + f"  ->  {self.fix}" * bool(self.fix)


def ok(name: str, found: str) -> Finding:
    return Finding(name, "ok", found)


def note(name: str, found: str, fix: str = "") -> Finding:
    return Finding(name, "note", found, fix)


def fault(name: str, found: str, fix: str) -> Finding:
    return Finding(name, "fault", found, fix)
