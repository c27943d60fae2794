"""How kernels and the simulator's runtime are compiled by g++ for the host. setup.py, the tests, and whoever compiles a
kernel of their own against csrc/simulator read this; it imports nothing.

A simulator is one library of instrumented kernels (`kernel_flags`) and a runtime that never is (`runtime_flags`).
"""

COMMON = (
    "-std=c++20",
    "-Icsrc",  # where the compiler runs: in the folder that csrc lies in
    "-fPIC",
    "-fvisibility=hidden",  # the two simulators in one process must not share functions
    "-fno-strict-aliasing",  # device code reinterprets memory freely
    "-ftls-model=initial-exec",  # threadIdx in one instruction
    "-fcf-protection=none",  # fibers switch stacks, which shadow stacks do not follow
    "-g1",  # lines for reports
    "-Wall",
    "-Wextra",
)

_KERNELS = (
    "-x",
    "c++",
    "-Wno-unknown-pragmas",  # unroll
    "-Wno-sign-compare",  # threadIdx.x < n, as all CUDA code has it
    "-fno-ipa-icf",  # each kernel an address of its own,
    "-fno-crossjumping",  # and each access a line of its own
    "-fno-tree-tail-merge",
    "-fstack-clash-protection",  # large local arrays run into the guard page, not over it
)

CHECK = ("-DCONVLAB_SIM_CHECK",)

# Calls before every access, answered by csrc/simulator/tsan_hooks.cpp and ubsan_hooks.cpp: never hand these flags to
# the linker, it would add the sanitizers' own runtime.
_INSTRUMENTATION = (
    "-fsanitize=thread",
    "-fsanitize=bounds,alignment,shift,integer-divide-by-zero,signed-integer-overflow",
    "-fno-sanitize-recover=all",
)


def runtime_flags(check: bool) -> list[str]:
    """For csrc/simulator/*.cpp and host code."""
    return [*COMMON, "-O2", *(CHECK if check else ())]


def kernel_flags(check: bool) -> list[str]:
    """For csrc/kernels/*.cu. -O3 where calls stand between the accesses: it is what inlines the device language."""
    return [*COMMON, *_KERNELS, *(("-O3", *CHECK, *_INSTRUMENTATION) if check else ("-O2",))]


def link_flags(csrc: str = "csrc") -> list[str]:
    """For whatever kernels are linked into, in any order of its files. csrc: the folder of these sources."""
    return [f"-Wl,-T,{csrc}/simulator/link.ld", "-pthread", "-ldl", "-lrt"]
