"""Importing a student's file, whose name, "06_mlp.py", is no name for Python."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


class _Exercises(MetaPathFinder):
    """Finds `mlp` in 06_mlp.py."""

    def __init__(self, folder: Path, others: dict[str, str]) -> None:
        self.folder, self.others = folder, others

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module of an exercise, if its file is there."""
        file = self.folder / self.others.get(name, "")
        return spec_from_file_location(name, file) if name in self.others and file.is_file() else None


def load(path: Path, name: str, others: dict[str, str]) -> ModuleType:
    """Run a student's file, in this process: it may do what it likes.

    Args:
        path: the file; in its folder the others are found, from now on.
        name: of the module that it becomes.
        others: files that it may import, by name: "mlp" stands for 06_mlp.py.
    """
    sys.path.insert(0, str(path.parent))
    sys.meta_path.append(_Exercises(path.parent, others))
    sys.argv, sys.dont_write_bytecode = [str(path)], True
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
