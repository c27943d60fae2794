"""Python in a process of its own, because what it tries may fail in any way."""

import signal
import subprocess
import sys
from typing import NamedTuple

SECONDS = 600  # longer than a slow disk needs for importing torch


class Outcome(NamedTuple):
    """failure: "" where the process ended well, else its last words, or how it died."""

    lines: list[str]
    failure: str


def run(*arguments: str) -> Outcome:
    """`python ARGUMENTS`; its lines on stdout."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as expired:
        said = expired.stdout or ""
        return Outcome(
            (said if isinstance(said, str) else said.decode(errors="replace")).splitlines(),
            f"did not end within {SECONDS} s",
        )
    return Outcome(done.stdout.splitlines(), _failure(done))


def _failure(done) -> str:
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"the process died of {signal.Signals(-done.returncode).name}"
    words = [line for line in done.stderr.splitlines() if line.strip()]
    return words[-1].removeprefix("ImportError: ") if words else f"exit status {done.returncode}"
