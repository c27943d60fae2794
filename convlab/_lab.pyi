# csrc/bindings.cpp and csrc/simulator_bindings.cpp, as a type checker sees them.
from collections.abc import Sequence
from typing import Any

Sizes = Sequence[int]

def algorithms() -> list[tuple[int, str, str, dict[str, list[str]]]]: ...
def refusal(
    algo: int,
    backend: str,
    pass_: str,
    dtype: str,
    x: Sizes,
    w: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
    /,
) -> str: ...
def choice(
    backend: str,
    pass_: str,
    dtype: str,
    x: Sizes,
    w: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
    channels_last: bool,
    /,
) -> str: ...
def plan(
    algo: int,
    pass_: str,
    dtype: str,
    x: Sizes,
    w: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
    /,
) -> dict[str, Any]: ...
def conv2d_output_size(
    x: Sizes, w: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int, /
) -> tuple[int, int]: ...
def build_info() -> dict[str, str]: ...

class Simulator:
    def __init__(self, library: str) -> None: ...
    def open_session(self, order: int, seed: int, count: bool, only_plan: bool) -> int: ...
    def close_session(self, session: int, /) -> None: ...
    def enter_session(self, session: int, /) -> int: ...
    def launches(self, session: int, /) -> list[tuple[Any, ...]]: ...
    def traffic(self, session: int, /) -> list[tuple[Any, ...]]: ...
    def set_os_threads(self, threads: int, /) -> None: ...
