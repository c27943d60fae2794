"""GPUs as their makers publish them, and what follows for a launch: how many blocks a multiprocessor holds, and how
many waves of them."""

import math
from dataclasses import dataclass

from ._near import did_you_mean

WARP = 32
SUBPARTITIONS = (
    4  # of a multiprocessor, since compute capability 7: each has a scheduler and a quarter of the registers
)
REGISTERS = 65536  # of a multiprocessor, and the most a block may have
REGISTER_UNIT = 256  # a warp gets its registers in these
# Products of the tensor cores that one of a convolution's takes, in the time of a float16 one
COST = {"float16": 1, "bfloat16": 1, "tf32": 2, "3xtf32": 6}


@dataclass(frozen=True)
class Gpu:
    """Limits from NVIDIA's data sheets, architecture papers and the CUDA programming guide; none is measured.

    sms, clock (boost, GHz), lanes (float32 multiply-adds a cycle and multiprocessor), bandwidth (of memory, GB/s), l2
    (MB), tensor (TFLOP/s of float16 and bfloat16 on the tensor cores, dense, with sums in float32; see COST),
    mma (what of these mma.sync reaches, 0: not known). Of a multiprocessor: l1 (bytes a cycle from its L1 cache or shared memory), shared (bytes, blocks
    together), threads, blocks. Of a block: shared_a_block (bytes), reserved (bytes of shared memory that the driver
    takes), shared_unit (bytes it gets its shared memory in).
    """

    name: str
    capability: str
    sms: int
    clock: float
    lanes: int
    bandwidth: float
    l2: int
    shared: int
    shared_a_block: int
    threads: int
    blocks: int
    tensor: float
    mma: float = 1.0
    l1: int = 128
    reserved: int = 1024
    shared_unit: int = 128

    @property
    def generation(self) -> int:
        """Ten times its compute capability."""
        return int(self.capability.replace(".", ""))

    @property
    def peak(self) -> float:
        """Floating-point operations a second of float32 multiply-adds."""
        return 2e9 * self.sms * self.lanes * self.clock

    def rate(self, precision: str | None) -> float:
        """Floating-point operations a second of products on the tensor cores in a precision of COST; of float32's
        multiply-adds without one."""
        return 1e12 * self.tensor / COST[precision] if precision else self.peak

    @property
    def products(self) -> float:
        """Floating-point operations a second of mma.sync on float16."""
        return 1e12 * self.tensor * self.mma

    @property
    def said(self) -> str:
        """How sure the limits are."""
        return "published, to be checked" if self.name in TO_BE_CHECKED else "published"

    @property
    def cycles(self) -> float:
        """Cycles a second of all multiprocessors together."""
        return 1e9 * self.sms * self.clock

    def blocks_at_once(self, threads: int, registers: int, shared: int) -> int:
        """Blocks that a multiprocessor holds, 0 if not even one, as cuda_occupancy.h computes it.

        threads: a block; registers: a thread; shared: bytes a block, static and dynamic.
        """
        warps = -(-threads // WARP)
        limits = [self.threads // WARP // warps, self.blocks]
        if registers:
            a_warp = _up(registers * WARP, REGISTER_UNIT)
            if a_warp * _up(warps, SUBPARTITIONS) > REGISTERS:
                return 0
            limits.append(REGISTERS // SUBPARTITIONS // a_warp * SUBPARTITIONS // warps)
        taken = _up(shared + self.reserved, self.shared_unit)
        if taken > self.shared_a_block + self.reserved:
            return 0
        return min([*limits, self.shared // taken] if taken else limits)


KB = 1024
OF_WGMMA = 0.63  # of compute capability 9.0's rate, what mma.sync reaches: arXiv 2402.13499, an H800
# T4: TU102 white paper and data sheet. A100: GA100 white paper, the 80 GB SXM4 part. A10: GA102 white paper and data
# sheet. L4 and RTX 4090: AD102 white paper and data sheets. H100, H200: GH100 white paper and data sheets, the SXM5 parts.
# B200: data sheet of the HGX board, whose float32 rate gives the clock, and the programming guide.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("T4", "7.5", 40, 1.590, 64, 320, 4, 64 * KB, 64 * KB, 1024, 16, 65, 0, l1=64, reserved=0, shared_unit=256),
        Gpu("A100", "8.0", 108, 1.410, 64, 2039, 40, 164 * KB, 163 * KB, 2048, 32, 312),
        Gpu("A10", "8.6", 72, 1.695, 128, 600, 6, 100 * KB, 99 * KB, 1536, 16, 125),
        Gpu("L4", "8.9", 58, 2.040, 128, 300, 48, 100 * KB, 99 * KB, 1536, 24, 121),
        Gpu("RTX 4090", "8.9", 128, 2.520, 128, 1008, 72, 100 * KB, 99 * KB, 1536, 24, 165.2),
        Gpu("H100", "9.0", 132, 1.980, 128, 3350, 50, 228 * KB, 227 * KB, 2048, 32, 989, OF_WGMMA),
        Gpu("H200", "9.0", 132, 1.980, 128, 4800, 50, 228 * KB, 227 * KB, 2048, 32, 989, OF_WGMMA),
        Gpu("B200", "10.0", 148, 1.980, 128, 8000, 126, 228 * KB, 227 * KB, 2048, 32, 2250, 0),
    )
}


H200 = GPUS["H200"]
# What of these limits the maker's papers were not read for, and where it comes from instead.
TO_BE_CHECKED = {
    "A10": "all, from memory of the data sheet; third parties' tables say the same",
    "L4": "bandwidth and L2 cache, from memory of the data sheet; third parties' tables say the same. Multiprocessors and "
    "clock are deviceQuery's, github.com/bottlerocket-os/bottlerocket-kernel-kit/pull/139",
    "B200": "clock and bandwidth, from memory of the data sheet. Multiprocessors and L2 cache are a driver's, "
    "github.com/pytorch/ao/pull/4002, by which memory has 7,672 GB/s",
}


def gpu_of(name: "str | Gpu") -> Gpu:
    """The GPU called so, however spaced and capitalised. Raises ValueError, with the names there are."""
    if isinstance(name, Gpu):
        return name
    plain = {key.replace(" ", "").lower(): gpu for key, gpu in GPUS.items()}
    wanted = str(name).replace(" ", "").replace("-", "").replace("_", "").lower()
    if wanted not in plain:
        raise ValueError(
            f"gpu={name!r} is none whose limits convlab knows: {did_you_mean(name, GPUS)}choose one of {', '.join(GPUS)}"
        )
    return plain[wanted]


@dataclass(frozen=True)
class Waves:
    """How a grid goes over a GPU, if all blocks take the same time.

    blocks_at_once: a multiprocessor; occupancy: threads there over the most it could hold; waves: whole and partial
    ones; tail: how full the last one is; efficiency: the blocks over the places for blocks in all waves.
    """

    blocks_at_once: int
    occupancy: float
    waves: int
    tail: float
    efficiency: float


def waves_of(gpu: Gpu, blocks: int, threads: int, registers: int, shared: int) -> Waves | None:
    """None for a block that does not fit a multiprocessor."""
    at_once = gpu.blocks_at_once(threads, registers, shared)
    if not at_once:
        return None
    places = at_once * gpu.sms
    waves = math.ceil(blocks / places)
    tail = (blocks - (waves - 1) * places) / places
    return Waves(at_once, at_once * _up(threads, WARP) / gpu.threads, waves, tail, blocks / (waves * places))


def _up(n: int, to: int) -> int:
    return -(-n // to) * to
