"""What this machine reaches: multiply-adds a second, and bytes a second of a copy. Measured, in the run that uses them."""

from pathlib import Path

import torch
from torch.nn import functional as F

from .. import _lab
from .layers import Conv
from .timer import Limits, best

SECONDS = 0.3  # to look for a ceiling
PEAK_TRIES = 10
SMALLEST, LARGEST = 2**18, 2**29  # bytes that a copy reads and writes together


def last_level_cache():
    """Bytes of the largest cache that Linux names, or 32 MiB where it names none."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]] for size in sizes if size[-1] in "KM"), default=32 * 2**20)


class Ceilings:
    """peak: floating-point operations a second in float32, and peak_by: how it was found. disturbed: whether other programs took
    the processor while one of the ceilings was measured, which is then too low."""

    def __init__(self, limits=Limits()):
        """`limits` are those of a row; a ceiling takes less time."""
        self.limits = limits._replace(seconds=min(SECONDS, limits.seconds))
        self.disturbed = False
        self._copies = {}
        if hasattr(_lab, "fma_peak"):
            tries = (_lab.fma_peak(self.limits.seconds / PEAK_TRIES, torch.get_num_threads()) for _ in range(PEAK_TRIES))
            self.peak, self.peak_by = max(tries), "fma"
        else:
            self.peak, self.peak_by = self._convolution_peak(), "torch's best convolution"

    def bandwidth(self, bytes):
        """Bytes a second, read and written, of a copy that takes about so many, to the next power of two: cached if `bytes` are."""
        size = min(max(1 << (bytes - 1).bit_length(), SMALLEST), LARGEST)
        if size not in self._copies:
            self._copies[size] = self._copy_bandwidth(size)
        return self._copies[size]

    def floor(self, flops, bytes):
        """The least number of seconds that so much arithmetic and traffic can take."""
        return max(flops / self.peak, bytes / self.bandwidth(bytes) if bytes else 0)

    def record(self):
        """For the JSON: GFLOP/s, and GB/s by the bytes a copy reads and writes."""
        copies = {str(size): rate / 1e9 for size, rate in sorted(self._copies.items())}
        return {"peak_gflops": self.peak / 1e9, "peak_by": self.peak_by, "copy_gbps": copies, "disturbed": self.disturbed}

    def _convolution_peak(self):
        """torch's fastest: a wide 3 x 3 convolution in channels_last, without padding. (Its matrix product is no such measure: MKL's
        reaches half of that on processors that are not Intel's.)"""
        layer = Conv("peak", 4, 128, 128, 3, 58)
        x, w = (torch.randn(shape).to(memory_format=torch.channels_last) for shape in (layer.x, layer.w))
        with torch.no_grad():
            return layer.flops / self._best(lambda: F.conv2d(x, w))

    def _copy_bandwidth(self, size):
        source, target = torch.zeros(size // 8), torch.zeros(size // 8)
        repeats = max(1, 2**24 // size)  # a timing that the clock resolves

        def copies():
            for _ in range(repeats):
                target.copy_(source)

        return repeats * size / self._best(copies)

    def _best(self, call):
        timing = best(call, self.limits)
        self.disturbed |= timing.disturbed
        return timing.seconds
