"""Kernels as students write them, in plain CUDA (tests/student/), and the mistakes that they make: what is changed in a
file, and what must be said of it."""

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "student"

# What each file computes, and of which dtype where it is not float32.
LIKE = {
    "basic": "conv2d_forward",
    "tiled": "conv2d_forward",
    "tiled_constant": "conv2d_forward",
    "streams": "conv2d_forward",
    "dynamic": "conv2d_forward",
    "constant": "conv2d_forward",
    "unrolled": "conv2d_forward",
    "fused": "conv2d_forward",
    "register_tiled": "conv2d_forward",
    "half": "conv2d_forward",
    "wmma": "conv2d_forward",
    "max_pool": "max_pool2d_forward",
    "avg_pool": "avg_pool2d_forward",
    "wgrad_atomics": "conv2d_wgrad",
    "words": "leaky_relu_forward",
    "reduction": "main",
}
DTYPES = {"half": "float16", "wmma": "float16"}
# Right, and of other bits in every run: floats that are added up in any order.
NOT_DETERMINISTIC = "wgrad_atomics"
CORRECT = [name for name in LIKE if name != NOT_DETERMINISTIC]


class Mistake(NamedTuple):
    file: str
    changes: list[tuple[str, str]]
    subject: str
    words: str  # one of them, between |, is in the message
    at: str = ""  # a text of the line that is named


LAUNCH_TILED = "conv_tiled<<<grid, block>>>"
MISTAKES = {
    # the direct convolution
    "no guard": Mistake(
        "basic", [("  if (p >= P || q >= Q) return;\n", "")], "bounds|races", "'input'|'output'", "x[((n * C|y[((n * K"
    ),
    "guard off by one": Mistake(
        "basic", [("p >= P || q >= Q", "p > P || q > Q")], "bounds|races", "'input'|'output'", "x[((n * C|y[((n * K"
    ),
    "bias forgotten": Mistake("basic", [("  if (bias) sum += bias[k];\n", "")], "results", "bias"),
    "filter flipped": Mistake(
        "basic",
        [("w[((k * C + c) * R + r) * S + s]", "w[((k * C + c) * R + R - 1 - r) * S + S - 1 - s]")],
        "results",
        "the filter is flipped",
    ),
    "uninitialised sum": Mistake("basic", [("float sum = 0.0f;", "float sum;")], "results", "are wrong"),
    "too many threads": Mistake("basic", [("#define TILE 16", "#define TILE 33")], "launches", "1089 threads a block"),
    "endless loop": Mistake(
        "basic", [("c < C; c++", "c < C;")], "barriers", "has run for", "|".join(["for (int", "sum +=", "x[((n"])
    ),
    "host reads": Mistake(
        "basic",
        [("  int P = H - R + 1", "  if (x[0] != x[0]) return;\n  int P = H - R + 1")],
        "host code",
        "host code reads device memory, 'input'",
        "if (x[0]",
    ),
    "grid rounds down": Mistake(
        "basic",
        [("(Q + TILE - 1) / TILE, (P + TILE - 1) / TILE", "Q / TILE, P / TILE")],
        "launches",
        "the grid has no blocks",
    ),
    # tiles in shared memory
    "no barrier after loading": Mistake(
        "tiled",
        [("    __syncthreads();  // loaded\n", "")],
        "races",
        "race (read before write) on shared 'tile'|race (read after write) on shared 'tile'|race (read before write) on shared 'filter'",
        "sum += tile",
    ),
    "no barrier after using": Mistake(
        "tiled",
        [("    __syncthreads();  // used\n", "")],
        "races",
        "race (write after read)|race (read after write)",
        "tile[i][j] =|filter[ty][tx] =|sum += tile",
    ),
    "return before a barrier": Mistake(
        "tiled",
        [("  float sum = bias", "  if (p0 + ty >= P || q0 + tx >= Q) return;\n  float sum = bias")],
        "barriers",
        "rather than a return before the barrier",
        "// loaded",
    ),
    "halo not zeroed": Mistake(
        "tiled",
        [
            (
                "tile[i][j] = inside ? x[((n * C + c) * H + h) * W + v] : 0.0f;",
                "if (inside) tile[i][j] = x[((n * C + c) * H + h) * W + v];",
            )
        ],
        "uninitialised reads",
        "shared 'tile'",
        "sum += tile",
    ),
    "tile without its halo": Mistake(
        "tiled", [("tile[IN][IN]", "tile[TILE][TILE]")], "bounds", "index 16 is outside an array|'tile'", "tile[i][j] ="
    ),
    "too much shared memory": Mistake(
        "tiled", [("tile[IN][IN]", "tile[IN][1000]")], "launches", "more than the 48 KiB", "__shared__ float tile"
    ),
    "barrier in a branch": Mistake(
        "tiled",
        [
            (
                "if (ty < R && tx < S) filter[ty][tx] = w[((k * C + c) * R + ty) * S + tx];\n    __syncthreads();  // loaded",
                "if (ty < R && tx < S) {\n      filter[ty][tx] = w[((k * C + c) * R + ty) * S + tx];\n      __syncthreads();  // loaded\n    }",
            )
        ],
        "barriers|races",
        "barrier divergence|race (read",
        "__syncthreads|sum += tile",
    ),
    "filters not copied": Mistake(
        "tiled_constant",
        [("  cudaMemcpyToSymbol(filters, w, K * C * R * S * sizeof(float), 0, cudaMemcpyDeviceToDevice);\n", "")],
        "results",
        "all of them are zero|are wrong",
    ),
    "every part the first": Mistake("streams", [("x + first * C * H * W, w", "x, w")], "results", "n >= 1|n = 1"),
    # dynamic shared memory
    "no dynamic bytes": Mistake(
        "dynamic",
        [("dim3(kTile, kTile), bytes, stream", "dim3(kTile, kTile), 0, stream")],
        "bounds",
        "the launch gave the block none",
        "tile[i] =",
    ),
    "too few dynamic bytes": Mistake(
        "dynamic",
        [("(rows * columns + R * S) * sizeof(float)", "rows * columns * sizeof(float)")],
        "bounds",
        "'dynamic shared memory'",
        "filter[i] =",
    ),
    "beyond the launch bounds": Mistake(
        "dynamic",
        [("grid, dim3(kTile, kTile), bytes", "grid, dim3(2 * kTile, kTile), bytes")],
        "launches",
        "__launch_bounds__",
    ),
    "dilation left out": Mistake("dynamic", [("r * dilation.x", "r"), ("s * dilation.y", "s")], "results", "dilation"),
    # constant memory
    "wrong direction": Mistake(
        "constant",
        [(" * sizeof(float), 0, cudaMemcpyDeviceToDevice)", " * sizeof(float))")],
        "host code",
        "cudaMemcpyToSymbol in the wrong direction: from device memory, 'weight'",
        "cudaMemcpyToSymbol",
    ),
    "too many filters": Mistake(
        "constant",
        [
            ('  return K * C * R * S > MAX_FILTERS ? "takes 4096 weights" : nullptr;', "  return nullptr;"),
            ("MAX_FILTERS 4096", "MAX_FILTERS 64"),
        ],
        "bounds",
        "cudaMemcpyToSymbol out of bounds",
        "cudaMemcpyToSymbol",
    ),
    "bytes without sizeof": Mistake(
        "constant", [("K * C * R * S * sizeof(float), 0", "K * C * R * S, 0")], "results", "are wrong"
    ),
    # memory of the launcher's own
    "memory not set": Mistake(
        "unrolled",
        [("    CHECK(cudaMemset(columns, 0, size * P * Q * sizeof(float)));\n", "")],
        "uninitialised reads",
        "device memory 'cudaMalloc of line",
        "bs[threadIdx.y][threadIdx.x] =",
    ),
    "elements for bytes": Mistake(
        "unrolled",
        [("(void**)&columns, size * P * Q * sizeof(float)", "(void**)&columns, size * P * Q")],
        "bounds",
        "cudaMemset: the destination is out of bounds",
        "cudaMemset",
    ),
    "freed twice": Mistake(
        "unrolled",
        [("  CHECK(cudaFree(columns));", "  CHECK(cudaFree(columns));\n  cudaFree(columns);  // again")],
        "host code",
        "cudaFree of what",
        "// again",
    ),
    "memcpy from the wrong side": Mistake(
        "unrolled",
        [
            (
                "    CHECK(cudaMemset(columns, 0, size * P * Q * sizeof(float)));\n",
                "    cudaMemcpy(columns, x, sizeof(float), cudaMemcpyHostToDevice);\n",
            )
        ],
        "host code",
        "cudaMemcpy in the wrong direction: from device memory, 'input' to device memory",
        "cudaMemcpy(columns",
    ),
    # fused
    "struct without a barrier": Mistake(
        "fused",
        [("column(x, g, down, pixel) : 0.0f;\n    __syncthreads();", "column(x, g, down, pixel) : 0.0f;")],
        "races",
        "race (read before write) on shared 'tiles'|race (read after write) on shared 'tiles'",
        "sum += tiles",
    ),
    "every image the first": Mistake(
        "fused", [("  x += blockIdx.z * g.C * g.H * g.W;\n", "")], "results", "n >= 1|n = 1"
    ),
    # registers
    "channels not guarded": Mistake(
        "register_tiled",
        [("    if (first + i < K) y[", "    y[")],
        "bounds|races",
        "'output'",
        "y[((n * K + first",
    ),
    "return too early": Mistake(
        "register_tiled",
        [("  float sums[kMaps];", "  if (p >= P || q >= Q) return;\n  float sums[kMaps];")],
        "barriers",
        "barrier divergence",
        "__syncthreads",
    ),
    # 16 bits
    "summed in 16 bits": Mistake(
        "half",
        [
            ("float sum = 0;", "half sum = 0;"),
            (
                "sum += __half2float(tile[(threadIdx.y + r) * width + threadIdx.x + s]) * __half2float(w[((k * C + c) * R + r) * S + s]);",
                "sum = __hfma(tile[(threadIdx.y + r) * width + threadIdx.x + s], w[((k * C + c) * R + r) * S + s], sum);",
            ),
            ("sum += __half2float(bias[k]);", "sum += bias[k];"),
            ("__float2half(sum);", "sum;"),
        ],
        "results",
        "the differences are small: rounding",
    ),
    "bytes of the tile alone": Mistake(
        "half",
        [("(TILE + R - 1) * (TILE + S - 1) * sizeof(__half)", "TILE * TILE * sizeof(__half)")],
        "bounds",
        "'dynamic shared memory'",
        "tile[i * width + j] =",
    ),
    # tensor cores
    "half a warp": Mistake(
        "wmma", [("N), 32>>>", "N), 16>>>")], "barriers", "needs all 32 lanes of the warp", "wmma::load_matrix_sync(fa"
    ),
    "wrong leading dimension": Mistake(
        "wmma", [("load_matrix_sync(fa, a, M)", "load_matrix_sync(fa, a, M / 2)")], "results", "are wrong"
    ),
    "by column": Mistake(
        "wmma",
        [("matrix_b, 16, 16, 16, half, wmma::row_major", "matrix_b, 16, 16, 16, half, wmma::col_major")],
        "results",
        "are wrong",
    ),
    "tiles read too early": Mistake(
        "wmma",
        [("    __syncthreads();\n    wmma::load_matrix_sync(fa", "    wmma::load_matrix_sync(fa")],
        "races",
        "on shared 'a'|on shared 'b'",
        "wmma::load_matrix_sync",
    ),
    # pooling
    "begins with zero": Mistake("max_pool", [("float best = -FLT_MAX;", "float best = 0;")], "results", "are wrong"),
    "stride forgotten": Mistake("max_pool", [("p * stride + r", "p + r")], "results", "are wrong"),
    "planes mixed up": Mistake(
        "max_pool", [("x + blockIdx.z * H * W", "x + blockIdx.z * P * Q")], "results", "are wrong"
    ),
    "half the lanes": Mistake("avg_pool", [("int offset = 16;", "int offset = 8;")], "results", "are wrong"),
    "every lane writes": Mistake(
        "avg_pool",
        [("  if (lane == 0) y[", "  y[")],
        "races",
        "race (write after write) on device memory 'output'",
        "y[output]",
    ),
    "failing assertion": Mistake(
        "avg_pool", [("assert(size > 0)", "assert(size > 100)")], "results", "assertion failed: size > 100", "assert("
    ),
    "shuffle in a branch": Mistake(
        "avg_pool",
        [
            (
                "    sum += __shfl_down_sync(0xffffffff, sum, offset);",
                "    if (lane < offset) sum += __shfl_down_sync(0xffffffff, sum, offset);",
            )
        ],
        "results",
        "are wrong",
    ),
    "a barrier too early": Mistake(
        "words",
        [
            (
                "  T other = writers == 0 ? values[threadIdx.x] : T(0);\n  __syncthreads();\n  return other;",
                "  T other = values[threadIdx.x];\n  __syncthreads();\n  return writers == 0 ? other : T(0);",
            )
        ],
        "races",
        "race (read after write) on shared 'writers'|race (write after read) on shared 'writers'",
        "return writers == 0|writers = 0;",
    ),
    # atomics
    "any order": Mistake("wgrad_atomics", [], "results", "other bits"),
    "no atomic": Mistake(
        "wgrad_atomics", [("atomicAdd(&part, sum)", "part += sum")], "races", "shared 'part'", "part += sum"
    ),
    "sums not zeroed": Mistake(
        "wgrad_atomics",
        [("  cudaMemset(dw, 0, K * C * R * S * sizeof(float));\n", "")],
        "uninitialised reads",
        "device memory 'grad_weight'",
        "atomicAdd(&dw",
    ),
    # a program
    "no barrier in the tree": Mistake(
        "reduction",
        [("part[t + half];\n    __syncthreads();", "part[t + half];")],
        "races",
        "on shared 'part'",
        "part[t] += part[t + half]|sums[blockIdx.x] =",
    ),
    "one element too many": Mistake(
        "reduction", [("i < n ?", "i <= n ?")], "bounds", "of 'cudaMalloc of line 25'", "x[i]"
    ),
    "an element forgotten": Mistake("reduction", [("i < n ?", "i < n - 1 ?")], "host code", "the program ended with 1"),
}


def changed(file: str, changes) -> str:
    text = (FOLDER / f"{file}.cu").read_text()
    for old, new in changes:
        assert text.count(old) == 1, (file, old)
        text = text.replace(old, new)
    return text


def complaints(mistake: Mistake, source: Path, report) -> list[str]:
    """What is not as it must be in the first finding."""
    if report.ok:
        return [f"nothing found:\n{report}"]
    finding, lines = report.findings[0], source.read_text().splitlines()
    wrong = []
    if finding.subject not in mistake.subject.split("|"):
        wrong.append(f"subject {finding.subject}, expected {mistake.subject}")
    if not any(words in finding.message for words in mistake.words.split("|")):
        wrong.append(f"the message has none of {mistake.words}")
    places = [f"{source}:{n}" for n, line in enumerate(lines, 1) if any(text in line for text in mistake.at.split("|"))]
    if mistake.at and finding.where not in places:
        wrong.append(f"at {finding.where}, expected {places}")
    return wrong and [*wrong, str(report)]
