"""CUDA C++ as g++ can read it, line for line: what of CUDA has no word in C++ is rewritten, everything else stays.

    kernel<T><<<grid, block, bytes, stream>>>(x)     CONVLAB_LAUNCH(kernel<T>)(grid, block, bytes, stream)(x)
    __shared__ float tile[16][17], sum;              struct convlab_shared_1 { float tile[16][17], sum; };
                                                     CONVLAB_SHARED(convlab_shared_1, tile) CONVLAB_SHARED(..., sum)
    extern __shared__ float buffer[];                the same with CONVLAB_DYNAMIC_SHARED

csrc/simulator/plain/cuda_runtime.h has the macros. Headers beside the file that it includes are rewritten too.
"""

import re
from pathlib import Path
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<directive>(?<![^\n])[ \t]*\#(?:\\\n|/\*.*?\*/|[^\n])*)
    |(?P<blank>\n|[^\S\n]+|//[^\n]*|/\*.*?\*/)
    |(?P<literal>R"(?P<raw>[^()\\ ]{0,16})\(.*?\)(?P=raw)"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<word>[A-Za-z_]\w*)
    |(?P<number>\.?\d(?:[eEpP][+-]|[\w.']|)*)
    |(?P<mark><<<|>>>|::|.)""",
    re.S | re.X,
)
_CLOSING = {")": "(", "]": "[", "}": "{"}
_SPECIFIERS = {"static", "extern", "volatile", "const", "inline", "__device__", "__constant__", "__shared__"}

# What is not simulated, and the way round.
_UNSUPPORTED = {
    r"asm|__asm__": "inline PTX is not simulated: use the function that CUDA has for it (__ldg, __shfl_down_sync, nvcuda::wmma ...)",
    r"__managed__": "of managed memory, what cudaMallocManaged gives is simulated",
    r"tex[123]D\w*|cudaTextureObject_t|cudaSurfaceObject_t|texture": "textures are not simulated: read the pointer, const float* __restrict__ or __ldg(address)",
    r"__syncthreads_(?:count|and|or)": "barriers that count are not simulated: __shared__ int n; atomicAdd(&n, 1) between two __syncthreads()",
    r"__activemask": "a mask of the lanes that are left is __ballot_sync(0xffffffff, 1); __activemask() names those that happen to run together",
    r"__match_(?:any|all)_sync|__reduce_\w+_sync": "of the votes __ballot_sync, __any_sync and __all_sync are simulated, of the sums a loop of __shfl_down_sync",
    r"cudaMemcpy[23]D\w*|cudaMallocPitch|cudaMalloc3D\w*|cudaMallocArray": "memory has no pitch here: cudaMalloc and cudaMemcpy, row by row",
    r"cudaMallocHost|cudaHostAlloc|cudaMallocAsync": "only cudaMalloc is simulated; on the host new, malloc and std::vector",
    r"cudaLaunchKernel\w*|cudaGraph\w*|cudaOccupancy\w*": "kernels are launched with kernel<<<grid, block, bytes, stream>>>(arguments)",
}


class Unsupported(NamedTuple):
    """Something in a kernel file that is not simulated, and the way round."""

    file: str
    line: int
    what: str
    way: str

    def __str__(self) -> str:
        return f"  {self.file}:{self.line}: {self.what}\n      {self.way}"


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def _tokens(text: str) -> list[_Token]:
    found, line = [], 1
    for match in _TOKEN.finditer(text):
        found.append(_Token(match.lastgroup if match.lastgroup != "raw" else "literal", match[0], line))
        line += match[0].count("\n")
    return found


class _File:
    """A source, token by token. `out` has the text of each token as it will be; blanks are skipped in looking round."""

    def __init__(self, name: str, text: str, host: str):
        self.name, self.host = name, host
        self.tokens = _tokens(text)
        self.out = [t.text for t in self.tokens]
        self.code = [i for i, t in enumerate(self.tokens) if t.kind not in ("blank", "directive")]
        self.unsupported: list[Unsupported] = []
        self.shared = 0

    def text(self, k: int) -> str:
        """Of the k-th token of the code, or nothing."""
        return self.tokens[self.code[k]].text if 0 <= k < len(self.code) else ""

    def is_word(self, k: int) -> bool:
        return 0 <= k < len(self.code) and self.tokens[self.code[k]].kind == "word"

    def complain(self, k: int, what: str, way: str):
        self.unsupported.append(Unsupported(self.name, self.tokens[self.code[k]].line, what, way))

    def put(self, k: int, text: str):
        self.out[self.code[k]] = text

    def before(self, k: int, text: str):
        self.out[self.code[k]] = text + self.out[self.code[k]]

    def after(self, k: int, text: str):
        self.out[self.code[k]] += text

    def close(self, k: int) -> int:
        """Where the bracket that opens at k closes."""
        depth = 0
        while k < len(self.code):
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(self.text(k), 0)
            if not depth:
                return k
            k += 1
        return k

    def rewrite(self) -> str:
        scopes: list[bool] = []  # of the open braces: whether a function's, or a class's, rather than a namespace's
        for token in self.tokens:
            if token.kind == "directive" and re.search(r"define\b.*(<<<|__shared__)", token.text, re.S):
                self.unsupported.append(
                    Unsupported(
                        self.name,
                        token.line,
                        "a launch or shared memory in a macro",
                        "write it where it is used, or in a function template",
                    )
                )
        begin = 0  # of the statement
        for k in range(len(self.code)):
            word = self.text(k)
            if word == "<<<":
                self.launch(k)
            elif word == "{":
                outside = self.text(begin) in ("namespace", "extern", "inline") and "(" not in map(
                    self.text, range(begin, k)
                )
                scopes.append(not outside)
            elif word == "}" and scopes:
                scopes.pop()
            elif self.is_word(k):
                self.word(k, word, any(scopes))
            if word in (";", "{", "}"):
                begin = k + 1
        return "".join(self.out)

    def word(self, k: int, word: str, inside: bool):
        member = self.text(k - 1) in (".", "->", "::")
        if word == "__shared__":
            self.declaration_of_shared(k, inside)
        elif word == "__noinline__":
            self.put(k, "__attribute__((noinline))")
        elif word == "main" and not inside and self.text(self.close(k + 1) + 1) == "{":
            self.put(k, "main_of_the_file")  # which is not called
            self.before(self.close(self.close(k + 1) + 1), "return 0; ")
        elif word in ("__constant__", "__device__") and not inside:
            self.variable(k, word)
        elif word == self.host and not inside and self.text(k + 1) == "(" and self.text(self.close(k + 1) + 1) == "{":
            self.before(
                k, '__attribute__((optimize("O0"))) '
            )  # as it stands: it may read what it must not, for nothing
        elif not member:
            for words, way in _UNSUPPORTED.items():
                if re.fullmatch(words, word) and (word != "texture" or self.text(k + 1) == "<"):
                    self.complain(k, word, way)

    def variable(self, k: int, word: str):
        """Of the device: __constant__ is a static in C++, and says so once."""
        first, last = self.specifiers(k)
        names = [self.text(i) for i in range(first, last)]
        if word == "__constant__":
            for i in range(first, last):
                if self.text(i) in ("static", "extern"):
                    self.put(i, "")
        elif not {"__constant__", "__shared__", "__global__"} & set(names):
            ends = next((i for i in range(last, len(self.code)) if self.text(i) in "(;=[{"), last)
            if self.text(ends) in (";", "=", "[") and "operator" not in map(self.text, range(last, ends)):
                self.complain(
                    k,
                    "__device__ variable",
                    "hand the kernel a pointer to memory of cudaMalloc; what does not change can be __constant__",
                )

    def specifiers(self, k: int) -> tuple[int, int]:
        """The run of specifiers around k, with what alignments they have."""
        first = k
        while True:
            if self.text(first - 1) in _SPECIFIERS:
                first -= 1
            elif self.text(first - 1) == ")" and self.text(self.open(first - 1) - 1) in ("__align__", "alignas"):
                first = self.open(first - 1) - 1
            else:
                break
        while self.text(k) in _SPECIFIERS:
            k += 1
        return first, k

    def open(self, k: int) -> int:
        """Where the bracket that closes at k opens."""
        depth = 0
        while k >= 0:
            depth += {")": 1, "]": 1, "}": 1, "(": -1, "[": -1, "{": -1}.get(self.text(k), 0)
            if not depth:
                break
            k -= 1
        return k

    def declaration_of_shared(self, k: int, inside: bool):
        first, last = self.specifiers(k)
        dynamic = "extern" in [self.text(i) for i in range(first, last)]
        names, end = self.declared(last)
        if not inside:
            return self.complain(k, "shared memory outside of a function", "declare it in the kernel that uses it")
        if not names:
            return self.complain(
                k, "this declaration of shared memory", "one name, and its dimensions: __shared__ float tile[16][17];"
            )
        if "=" in [self.text(i) for i in range(last, end)]:
            return self.complain(
                k,
                "shared memory with an initial value, which CUDA has not",
                "let a thread write it, and __syncthreads()",
            )
        self.shared += 1
        struct = f"convlab_shared_{self.shared}"
        for i in range(first, last):
            if self.text(i) in ("static", "extern", "__shared__"):
                self.put(i, "")
        self.before(first, f"struct {struct} {{ ")
        if dynamic:
            for i in names:
                if self.text(i + 1) == "[" and self.text(i + 2) == "]":
                    self.after(i + 1, "1")
        macro = "CONVLAB_DYNAMIC_SHARED" if dynamic else "CONVLAB_SHARED"
        self.after(end, " }; " + " ".join(f"{macro}({struct}, {self.text(i)})" for i in names))

    def declared(self, k: int) -> tuple[list[int], int]:
        """The names that a declaration declares, and where it ends."""
        names, depth = [], 0
        while k < len(self.code) and (depth or self.text(k) != ";"):
            text = self.text(k)
            if text in "([{":
                if text == "[" and not depth and self.is_word(k - 1):
                    names.append(k - 1)
                k = self.close(k)
            elif text in ("<", ">"):
                depth += 1 if text == "<" else -1
            elif text in ",=" and not depth and self.is_word(k - 1):
                names.append(k - 1)
            k += 1
        if self.is_word(k - 1):
            names.append(k - 1)
        return names, k

    def launch(self, k: int):
        first = self.name_before(k)
        end, depth = k + 1, 0
        while end < len(self.code) and (depth or self.text(end) != ">>>"):
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(self.text(end), 0)
            end += 1
        if first == k or self.text(end) != ">>>" or self.text(end + 1) != "(":
            return self.complain(k, "this launch", "kernel<<<grid, block, bytes, stream>>>(arguments)")
        self.before(first, "CONVLAB_LAUNCH(")
        self.put(k, ")(")
        self.put(end, ")")

    def name_before(self, k: int) -> int:
        """Where the kernel's name begins that ends before k: a::b<c, d>."""
        end, k = k, k - 1
        if self.text(k) in (">", ">>>"):
            depth = 0
            while k >= 0:
                text = self.text(k)
                if text in _CLOSING:
                    k = self.open(k)
                else:
                    depth += {">": 1, ">>>": 3, "<": -1}.get(text, 0)
                k -= 1
                if not depth:
                    break
        elif self.text(k) in (")", "]"):
            k = self.open(k) - (self.text(k) == "]")
            return k if k >= 0 else end
        if not self.is_word(k):
            return end
        while self.text(k - 1) == "::" or self.text(k - 1) == "template":
            k -= 1
            if self.is_word(k - 1) and self.text(k) == "::":
                k -= 1
        return k


def translated(source: Path, host: str, folder: Path) -> tuple[Path, list[Unsupported]]:
    """A copy of `source` in `folder` that g++ can read, whose lines are named as those of the source, by the path that is
    given; and why it may not compile all the same. host: its function that is called."""
    done: dict[Path, Path] = {}
    unsupported: list[Unsupported] = []

    def one(path: Path) -> Path:
        if copy := done.get(path.resolve()):
            return copy
        copy = done[path.resolve()] = folder / f"{len(done)}_{path.name}"
        text = re.sub(
            r'^([ \t]*#[ \t]*include[ \t]*)"([^"\n]+)"',
            lambda m: f'{m[1]}"{one(beside)}"' if (beside := path.parent / m[2]).is_file() else m[0],
            path.read_text(errors="replace"),
            flags=re.M,
        )
        file = _File(str(path), text, host)
        copy.write_text(f'#line 1 "{path}"\n{file.rewrite()}')
        unsupported.extend(file.unsupported)
        return copy

    return one(source), unsupported


def is_plain(text: str) -> bool:
    """Whether it stands on its own as CUDA: it includes nothing of convlab's."""
    return not re.search(r'^[ \t]*#[ \t]*include[ \t]*"(?:device/|geometry/|dtype\.h)', text, re.M)
