"""The name that was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """A question, with a blank behind it, for an error about a name that is none of these; empty where none is near."""
    lower = {known.lower(): known for known in names}
    near = get_close_matches(str(name).lower(), lower, n=1)
    return f"did you mean {lower[near[0]]!r}? " if near else ""
