"""The heart of the library as it stands, or with a mistake planted in its source."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import vitscratch

HEART = ("config", "patches", "attention", "mlp", "encoder", "untouched", "vit")


def real_library() -> SimpleNamespace:
    """The classes and functions of the heart."""
    return _collect([importlib.import_module(f"vitscratch.{name}") for name in HEART])


def library_with(mistake: Mapping[str, tuple[str, str]]) -> SimpleNamespace:
    """The same from edited copies of the source: file -> (text that stands there once, text to put in its place)."""
    names = [f"vitscratch.{name}" for name in HEART]
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    modules = []
    try:
        for name in HEART:
            path = Path(vitscratch.__file__).with_name(f"{name}.py")
            source = path.read_text()
            if name in mistake:
                old, new = mistake[name]
                assert source.count(old) == 1, (
                    f"{name}.py has {source.count(old)} of {old!r}; the mistake has to follow it"
                )
                source = source.replace(old, new)
            module = ModuleType(f"vitscratch.{name}")
            sys.modules[module.__name__] = module  # so that the copies import each other
            exec(compile(source, f"planted/{name}.py", "exec"), module.__dict__)
            modules.append(module)
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(kept)
    return _collect(modules)


def _collect(modules: list[ModuleType]) -> SimpleNamespace:
    found: dict[str, object] = {}
    for module in modules:
        found |= {name: thing for name, thing in vars(module).items() if not name.startswith("_")}
    return SimpleNamespace(**found)
