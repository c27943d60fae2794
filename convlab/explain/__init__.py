"""What a convolution's CUDA kernels will do, without a GPU.

    python -m convlab.explain lenet.c3 --count
    from convlab.explain import explain
    explain("lenet.c3", count=True).passes[0].rungs[0].launches

explanation  explain() and its answer, as data
compiled     registers and shared memory, as the compiler reported them
work         operations, bytes and replication, from the shapes
multiplied   what Winograd's tiles save of the multiplications
counting     a pass planned, or run and counted by the simulator
sass         what the machine code of a kernel does a trip of its loop
prediction   how long a pass will take: a model of time, fitted to an H200's record
picture      blocks over outputs
text, plot   the answer on a terminal, and the roofline
"""

from ..gpus import GPUS, Gpu, Waves
from .counting import Counted
from .explanation import Bound, Explanation, KernelLaunch, Pass, Rung, explain
from .multiplied import Multiplied
from .picture import Picture
from .prediction import Prediction
from .work import Work

__all__ = [
    "GPUS",
    "Bound",
    "Counted",
    "Explanation",
    "Gpu",
    "KernelLaunch",
    "Multiplied",
    "Pass",
    "Picture",
    "Prediction",
    "Rung",
    "Waves",
    "Work",
    "explain",
]
