"""Writing files, whole or not at all, and JSON that is compact but still in lines. Needs the standard library alone,
for tools that run before convlab is built."""

import json
import os
from pathlib import Path

WIDTH = 220  # columns of a line of JSON


def write(path, text):
    """Replaces `path` in one step: a reader finds the whole old file or the whole new one."""
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
    """JSON in lines of at most WIDTH columns: a value that fits on a line is not broken, and neighbours share lines."""
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
