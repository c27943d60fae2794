"""Has a function called with a module of torch's when that is imported, which convlab is too polite to do itself: some take
long, and bring half of PyTorch with them."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_imported(name: str, call: Callable[[ModuleType], None]) -> None:
    """Calls `call(module)` for the module `name`: now, if it is imported already."""
    if name in sys.modules:
        call(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, call))


class _Finder(MetaPathFinder):
    """Finds one module, once, by the other finders, and sees to it that `call` follows its execution."""

    def __init__(self, name: str, call: Callable[[ModuleType], None]) -> None:
        self.name, self.call = name, call

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                self.call(module)

            setattr(spec.loader, "exec_module", execute_and_call)  # noqa: B010  (of this one loader)
        return spec
