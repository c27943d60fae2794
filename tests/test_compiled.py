"""What the compiler says about the kernels it built: no spills, no surprise in registers, and loops that multiply and
add."""

import json
import re
from pathlib import Path

import compiled_kernels
import pytest

import convlab
from convlab.explain.compiled import find_tools

LIBRARY = Path(convlab.__file__).with_name("_C.so")
NVCC = convlab.build_info()["nvcc"]
AGAIN = "if it is meant, python -m tools.compiled_kernels --write renews the table"

# Of kernels of sm_90 whose names begin so, the least share of FFMA in the main loop. Naive index arithmetic in the loop
# gives 12 %.
LEAST_FFMA = {
    r"gemm_kernel<Tile<128, 256, .*ForwardMap<float>": 0.84,
    r"gemm_kernel<Tile<128, 256, .*DgradMap<float>": 0.84,
    r"gemm_kernel<Tile<128, 128, .*WgradMap<float>": 0.78,
    r"(.*\.cu: )?small_filter_forward_kernel<1, 6, 5, 5": 0.65,  # LeNet C1
}

pytestmark = [
    pytest.mark.skipif(not NVCC, reason="convlab was built without nvcc"),
    pytest.mark.skipif(
        not find_tools(),
        reason="no cuobjdump and nvdisasm: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm",
    ),
]


@pytest.fixture(scope="module")
def found():
    return compiled_kernels.resources(LIBRARY)


def test_every_kernel_is_seen(found):
    assert set(found) == {arch.removesuffix("+PTX") for arch in convlab.build_info()["cuda_archs"]}
    everywhere = set.intersection(
        *map(set, found.values())
    )  # the same kernels for every architecture, but those compiled once for 8.x
    assert {kernel.split("<")[0] for kernels in found.values() for kernel in kernels if kernel not in everywhere} <= {
        "tensor_core_kernel",
        "warpgroup_kernel",
        "warpgroup_filter_kernel",
        "warpgroup_filter_tf32_kernel",
        "positions_inner_kernel",
        "chunks_kernel",
        "filter_kernel",
        "filter_transposed_kernel",
        "joined_filter_kernel",
        "add_filter_slices_kernel",
        *(f"conv2d_small_filter.cu: small_filter_{name}_kernel" for name in ("forward", "block", "dgrad", "wgrad")),
    }
    kernels = " ".join(set().union(*found.values()))
    for source in (LIBRARY.parent.parent / "csrc" / "kernels").glob("*.cu"):
        for name in re.findall(r"__global__ void[^;{]*?(\w+_kernel)\(", source.read_text()):
            assert name in kernels, f"{name} of {source.name} is not in {LIBRARY.name}"


# Of kernels whose names begin so, the least share of HMMA in the main loop, for 8.0 and 9.0
LEAST_HMMA = {
    r"tensor_core_kernel<B?Float16Products, WarpTile<128, 128.*ImageMap": 0.39,
    r"tensor_core_kernel<B?Float16Products, WarpTile<128, 64.*ImageMap": 0.26,
    r"tensor_core_kernel<B?Float16Products, WarpTile<64, 64.*ImageMap": 0.18,
    r"tensor_core_kernel<B?Float16Products, WarpTile<128, 16,": 0.09,
    r"tensor_core_kernel<B?Float16Products, WarpTile<128, 128": 0.26,
    r"tensor_core_kernel<B?Float16Products, WarpTile<128, 64": 0.17,
    r"tensor_core_kernel<B?Float16Products, WarpTile<64, 64": 0.1,
    # of these the loop has copies of single elements too, which are loops of their own where they run
    r"tensor_core_kernel<Tf32Products, WarpTile<128, 128.*ImageMap": 0.15,
    r"tensor_core_kernel<Tf32Products, WarpTile<128, 128": 0.12,
    r"tensor_core_kernel<Tf32Products, WarpTile<128, 64": 0.07,
    r"tensor_core_kernel<Tf32Products, WarpTile<128, 16,": 0.028,
    r"tensor_core_kernel<Tf32Products": 0.04,
    r"tensor_core_kernel<Tf32x3Products, WarpTile<128, 16,": 0.05,
    r"tensor_core_kernel<Tf32x3Products": 0.08,
}

# Bytes that a thread of these may keep in memory; what that costs no GPU has said yet.
KNOWN = {
    r"filter_transposed_kernel<": 8,
    r"positions_inner_kernel<": 8,
    r"adaptive_pool2d.cu: average_backward_kernel<": 16,
    r"conv2d_direct.cu: block_kernel<double>": 8,
    r"max_pool2d.cu: forward_kernel<__nv_bfloat16, Share<3": 8,  # 4 are spilled, on 7.5
    r"max_pool2d.cu: backward_kernel<double": 8,
}


def test_no_spills(found):
    spilled = [
        f"{arch}: {kernel}: {r.stack} bytes"
        for arch, kernels in found.items()
        for kernel, r in kernels.items()
        if r.stack > max((most for pattern, most in KNOWN.items() if re.match(pattern, kernel)), default=0)
    ]
    assert not spilled, "a thread of these keeps some of its values in memory, not in registers:\n" + "\n".join(spilled)


def test_registers_and_shared_memory_are_those_of_the_table(found):
    path = compiled_kernels.table_of(NVCC)
    if not path.exists():
        pytest.skip(f"no table for nvcc {NVCC}: python -m tools.compiled_kernels --write makes {path.name}")
    table, now = json.loads(path.read_text()), compiled_kernels.as_table(found)
    built = set(found) & set(compiled_kernels.TABLED_ARCHS)
    table = {kernel: {arch: v for arch, v in by_arch.items() if arch in built} for kernel, by_arch in table.items()}
    changed = [
        f"{kernel}: [registers, shared bytes] {by_arch} -> {now.get(kernel)}"
        for kernel, by_arch in sorted(table.items())
        if built and by_arch != now.get(kernel)
    ]
    assert not changed, f"other than {path.name} says; {AGAIN}:\n" + "\n".join(changed)


def test_the_table_has_all_kernels_of_a_file_or_none(found):
    """None: it is new."""
    path = compiled_kernels.table_of(NVCC)
    if not path.exists():
        pytest.skip(f"no table for nvcc {NVCC}")
    table, now = json.loads(path.read_text()), compiled_kernels.as_table(found)
    known = {kernel.split("<")[0] for kernel in table}
    missing = [kernel for kernel in now if kernel not in table and kernel.split("<")[0] in known]
    assert not missing, f"{path.name} has others like these; {AGAIN}:\n" + "\n".join(missing)


def test_main_loops_multiply_and_add(found):
    if "9.0" not in found:
        pytest.skip("built without 9.0, which the bounds are for")
    loops = compiled_kernels.main_loops(LIBRARY, "9.0")
    for pattern, least in LEAST_FFMA.items():
        if not any(pattern.split("<")[0].split(")?")[-1] in kernel for kernel in found["9.0"]):
            continue  # a rung that this build does not have
        matching = {kernel: loop for kernel, loop in loops.items() if re.match(pattern, kernel)}
        assert matching, f"no kernel is called {pattern}: {', '.join(loops)}"
        for kernel, loop in matching.items():
            assert loop.share >= least, f"{kernel}: {loop.share:.1%} of the main loop is FFMA, not {least:.0%}: {loop}"


def test_the_next_tile_is_loaded_during_the_multiply_adds(found):
    """nvcc once moved the loads behind them, where every tile waited for memory; no result and no count told."""
    if "9.0" not in found:
        pytest.skip("built without 9.0")
    loops = {
        kernel: loop
        for kernel, loop in compiled_kernels.main_loops(LIBRARY, "9.0").items()
        if kernel.startswith("gemm_kernel<")
    }
    assert len(loops) > 10
    for kernel, loop in loops.items():
        assert loop.opcodes["LDG"] and loop.before_loads <= loop.multiply_adds / 4, f"{kernel}: {loop}"


@pytest.mark.parametrize("arch", [pytest.param("8.0", marks=pytest.mark.long), "9.0"])  # half a minute each
def test_tensor_cores_multiply_while_the_next_tile_is_copied(found, arch):
    if arch not in found:
        pytest.skip(f"built without {arch}")
    loops = compiled_kernels.main_loops(LIBRARY, arch, "HMMA")
    assert set(loops) == {kernel for kernel in found[arch] if kernel.startswith("tensor_core_kernel<")}
    for kernel, loop in loops.items():
        assert loop.opcodes["LDGSTS"] and loop.before_loads == 0, f"{kernel}: copies begin behind products: {loop}"
        least = next(share for pattern, share in LEAST_HMMA.items() if re.match(pattern, kernel))
        assert loop.share >= least, f"{kernel}: {loop.share:.1%} of the main loop is HMMA, not {least:.0%}: {loop}"


def test_warpgroups_multiply_while_the_next_tile_is_copied(found):
    """Copies begin when a tile's products are under way, and nothing moves sums between two products."""
    if "9.0" not in found:
        pytest.skip("built without 9.0")
    loops = compiled_kernels.main_loops(LIBRARY, "9.0", "HGMMA")
    assert set(loops) == {kernel for kernel in found["9.0"] if kernel.startswith("warpgroup_")}
    for kernel, loop in loops.items():
        tile = re.search(r"Tile<([^>]*)>", kernel)[1]
        if "SplitTile<" in kernel or tile.endswith(("true", "(bool)1")):  # strict float32: two groups of six
            assert loop.multiply_adds == 12 and loop.opcodes["LDGSTS"], f"{kernel}: {loop}"
            assert loop.opcodes["WARPGROUP"] <= 6, f"{kernel}: products are waited for one by one: {loop}"
            continue
        tiles = 2 if kernel.startswith("warpgroup_filter_tf32") else 1  # a loop's, so that no register of A is moved
        assert loop.multiply_adds == 4 * tiles and loop.opcodes["WARPGROUP"] == 2 * tiles, f"{kernel}: {loop}"
        assert loop.opcodes["LDGSTS"] and loop.before_loads == 4 * tiles, f"{kernel}: products wait for copies: {loop}"


def test_vectors_are_stored_with_one_instruction(found):
    """nvcc takes a struct's members one by one if it is left to it: four times the requests."""
    if "9.0" not in found:
        pytest.skip("built without 9.0")
    vectors = r"gemm_kernel<Tile<\d+, \d+, 8, .*Map<float>|(.*: )?(unary|binary)_kernel<4, float"
    kernels = {
        kernel: "\n".join(lines)
        for kernel, lines in compiled_kernels.sass(LIBRARY, "9.0").items()
        if re.match(vectors, kernel)
    }
    assert len(kernels) > 15
    assert [kernel for kernel, lines in kernels.items() if not re.search(r"\bSTG?\.E\.128\b", lines)] == []


SASS = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;    /* 0x1 */
        /*0010*/                   FFMA R0, R1, R2, R3 ;     /* 0x1 */
        /*0020*/              @!P0 FFMA R0, R1, R2, R3 ;     /* 0x1 */
        /*0030*/                   LDS.128 R4, [R5+0x10] ;   /* 0x1 */
        /*0040*/                   FFMA.FTZ R0, R1, R2, R3 ; /* 0x1 */
        /*0050*/               @P1 BRA 0x20 ;                /* 0x1 */
        /*0060*/                   BRA 0x90 ;                /* 0x1 */
        /*0070*/                   FFMA R0, R1, R2, R3 ;     /* 0x1 */
        /*0080*/              @!P2 BRA 0x10 ;                /* 0x1 */
        /*0090*/                   EXIT ;                    /* 0x1 */
        /*00a0*/                   BRA 0xa0;                 /* 0x1 */
"""


def test_the_main_loop_is_the_innermost_with_most_ffma():
    loop = compiled_kernels.main_loop(SASS.splitlines())
    assert (loop.instructions, loop.multiply_adds, loop.before_loads) == (4, 2, 0)
    assert compiled_kernels.main_loop(SASS.replace("LDS.128", "LDG.E").splitlines()).before_loads == 1
    assert dict(loop.opcodes) == {"FFMA": 2, "LDS": 1, "BRA": 1}
    assert compiled_kernels.main_loop([]) is None
