"""The CPU kernels, as the machine sees them: which instruction set's are in use, and what it could reach."""

import ctypes

from ._load import library

_library = ctypes.CDLL(str(library))
_library.convlab_cpu_kernels.restype = ctypes.c_char_p
_library.convlab_cpu_kernels.argtypes = [ctypes.POINTER(ctypes.c_char_p)]
_library.convlab_cpu_amx.restype = ctypes.c_bool
_library.convlab_cpu_peak.restype = ctypes.c_double
_library.convlab_cpu_peak.argtypes = [ctypes.c_double, ctypes.c_int]


def kernels() -> str:
    """ "avx512", "avx2" or "baseline": the best this machine runs, or what the environment variable CONVLAB_CPU named
    when the first kernel ran. Raises RuntimeError where CONVLAB_CPU names what there is not, or not on this machine."""
    error = ctypes.c_char_p()
    name: bytes | None = _library.convlab_cpu_kernels(ctypes.byref(error))
    if name is None:
        raise RuntimeError((error.value or b"").decode())
    return name.decode()


def has_amx() -> bool:
    """Whether convolutions of bfloat16 may use the tile registers of AMX: this machine has them, and CONVLAB_CPU,
    where it is set, says "amx"."""
    kernels()
    return bool(_library.convlab_cpu_amx())


def fma_peak(seconds: float, threads: int) -> float:
    """Floating-point operations a second of float32 multiply-adds in registers, `threads` threads together; takes
    `seconds`."""
    kernels()
    return float(_library.convlab_cpu_peak(seconds, threads))
