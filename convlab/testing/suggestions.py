"""What to do about a fault that the simulator found, where its words and the kernel's source tell."""

import re
from pathlib import Path

from .program import without_comments

_SUGGESTIONS = {  # by the simulator's words
    r"race \(write after write\) on [^\n]*\n +at (.+)\n.* at \1(?:\n|$)": "threads write one element here: an if around it for those beyond the output's sizes (P, Q or K, say), an index that is each thread's own, or atomicAdd where they add up",
    r"race \(.*\) on [^s][^\n]*\n.*\n.* by a thread of another block": "no barrier reaches another block: atomicAdd, an element for each block, or a launch for each of the two steps",
    r"race \((?!read before)": "a __syncthreads() between the two, which all threads of the block reach, or atomicAdd where threads add to one element",
    r"barrier divergence: .* the others have returned": "a condition around loads and stores alone, rather than a return before the barrier or an if around it",
}


def suggestion(fault: str) -> str:
    """What to do about a fault, in the simulator's words, as a line more; nothing where that is not known. The
    files that it names are looked at."""
    if advice := _around_the_loop(fault):
        return f"\n  suggests: {advice}"
    return next((f"\n  suggests: {advice}" for words, advice in _SUGGESTIONS.items() if re.match(words, fault)), "")


def _around_the_loop(fault: str) -> str:
    """What to do about a race whose two accesses have a barrier between them in the body of a loop: the access that
    comes last there meets the first one of the next iteration. Empty for any other fault, and where that is unsure."""
    race = re.match(
        r"race \((\w+) after (\w+)\) on shared .*\n +at (.+?):(\d+):(\d+)\n.* at (.+?):(\d+):(\d+)(?:\n|$)",
        fault,
    )
    if not race or race[3] != race[6] or not Path(race[3]).is_file():
        return ""
    text = without_comments(Path(race[3]).read_text(errors="replace"))
    begins = [0, *(m.end() for m in re.finditer("\n", text))]
    places = [(int(race[4]), int(race[5]), race[1]), (int(race[7]), int(race[8]), race[2])]
    (line, column, what), (last_line, last_column, last_what) = sorted(places)
    if last_line > len(begins):  # a #line of the file's own
        return ""
    first, last = begins[line - 1] + column - 1, begins[last_line - 1] + last_column - 1
    blocks, opened = [], []
    for brace in re.finditer("[{}]", text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            blocks.append((opened.pop(), brace.start()))
    loops = [(b, e) for b, e in blocks if b < first and last < e and _heads_a_loop(text[:b].rstrip())]
    for barrier in re.finditer(r"(?<=[;{}])\s*__syncthreads\(\)", text[first:last]):
        at = first + barrier.end()
        if loops and all(b < first < e or b < last < e for b, e in blocks if b < at < e):
            end = text.count("\n", 0, max(loops)[1]) + 1
            return (
                f"the {last_what} at line {last_line} comes first, and the {what} at line {line} follows in the "
                f"loop's next iteration: a __syncthreads() at the end of the loop's body, before the brace in line {end}"
            )
    return ""


def _heads_a_loop(text: str) -> bool:
    """Whether what ends here, before a brace, is the head of a loop."""
    if not text.endswith(")"):
        return bool(re.search(r"\bdo$", text))
    begin = depth = 0
    for begin in range(len(text) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(text[begin], 0)
        if not depth:
            break
    return bool(re.search(r"\b(?:for|while)\s*$", text[:begin]))
