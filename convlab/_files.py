"""Files that programs leave behind: written whole or not at all, and JSON that is compact and still has lines. Of the
standard library alone, for tools that run where convlab is not built yet."""

import json
import os
from pathlib import Path

WIDTH = 220  # columns of a line of JSON


def write(path, text):
    """At every moment `path` is the old file or the new one, whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value):
    write(path, compact(value) + "\n")


def compact(value, indent=""):
    """JSON in lines of WIDTH columns: what fits into one is not broken, and neighbours share a line."""
    text = json.dumps(value)
    if not isinstance(value, (dict, list, tuple)) or len(indent) + len(text) <= WIDTH:
        return text
    indent += " "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {compact(item, indent)}" for key, item in value.items()]
    else:
        items = [compact(item, indent) for item in value]
    lines = items[:1]
    for item in items[1:]:
        if "\n" in item or "\n" in lines[-1] or len(indent) + len(lines[-1]) + len(item) + 2 > WIDTH:
            lines.append(item)
        else:
            lines[-1] += f", {item}"
    return text[0] + f",\n{indent}".join(lines) + text[-1]
