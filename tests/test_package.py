"""The house: where imports point, what an import loads, what is public, and how long the heart is."""

import ast
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vitscratch

PACKAGE = Path(vitscratch.__file__).parent
ROOT = PACKAGE.parent
HEART = ("patches", "attention", "mlp", "encoder", "vit")

# What each part may import of the package, from the design. A part is a file or a folder directly in the package.
ALLOWED: dict[str, set[str]] = {
    **{name: set() for name in ("patches", "attention", "mlp", "config", "files", "randomness")},
    "encoder": {"attention", "mlp"},
    "untouched": {"attention", "mlp", "encoder"},
    # weights in a function alone, for the builders (`vit_b_16(weights=...)`); weights imports vit
    "vit": {"patches", "encoder", "untouched", "config", "weights"},
    "parity": {"config", "patches", "vit", "randomness"},
    "explain": {"attention", "vit"},
    "data": {"randomness"},
    "weights": {"config", "patches", "encoder", "vit", "files", "data"},
    "training": {"config", "files", "randomness"},  # of config TrainingConfig alone: the loop works on any module
    "transfer": {"config", "vit", "weights", "data", "training", "files", "randomness"},
    "baselines": {"data", "training", "config"},  # never the model: what a ViT is compared with does not depend on it
    "plots": {"training"},
    "bench": {"config", "vit", "parity", "training", "weights"},
    "exercises": {
        "patches",
        "attention",
        "mlp",
        "encoder",
        "vit",
        "weights",
        "training",
        "transfer",
        "data",
        "files",
        "randomness",
    },
    "recipes": {"config", "files", "patches", "vit", "data", "training", "bench", "weights", "transfer", "baselines"},
    "cli": {
        "",
        "config",
        "vit",
        "parity",
        "explain",
        "data",
        "training",
        "plots",
        "bench",
        "recipes",
        "weights",
        "transfer",
        "baselines",
        "exercises",
        "files",
    },
    "__main__": {"cli"},
    "__init__": {*HEART, "config", "explain"},  # for type checkers only; see test_import_is_light
}


def imported_parts(source: str) -> set[str]:
    """The parts of the package that a file imports anywhere, functions and TYPE_CHECKING included."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            modules += [str(node.module)] if node.module != "vitscratch" else [
                f"vitscratch.{alias.name}" if (PACKAGE / alias.name).exists() or (PACKAGE / f"{alias.name}.py").exists()
                else "vitscratch" for alias in node.names
            ]  # fmt: skip
    inside = [module for module in modules if module.split(".")[0] == "vitscratch"]
    return {module.split(".")[1] if "." in module else "" for module in inside}


def test_imports_point_where_they_may() -> None:
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        assert part in ALLOWED, f"{part} is new: say in ALLOWED what it may import"
        found = imported_parts(path.read_text()) - {part}
        allowed = {""} if path.parent.name == "stubs" else ALLOWED[part]  # a student imports the public names
        assert found <= allowed, f"{path} imports {found - allowed}"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import vitscratch.vit", {"vit"}),
        ("from vitscratch.training.loop import fit", {"training"}),
        ("from vitscratch import plots, VisionTransformer", {"plots", ""}),
        ("def f():\n    from vitscratch.cli import main", {"cli"}),
        ("import torch", set()),
    ],
)
def test_the_import_reader_sees_every_form(source: str, parts: set[str]) -> None:
    assert imported_parts(source) == parts


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}


def test_import_is_light() -> None:
    heavy = {"torchvision", "sklearn", "matplotlib", "timm", "transformers", "torchinfo", "tyro"}
    assert not loaded_by("import vitscratch") & heavy
    loaded = loaded_by("from vitscratch import *")
    assert not loaded & heavy and {"torch", "einops"} <= loaded


def test_help_does_not_wait_for_torch() -> None:
    loaded = loaded_by(
        "import vitscratch.cli, contextlib\nwith contextlib.suppress(SystemExit): vitscratch.cli.main([])"
    )
    assert "tyro" in loaded and not loaded & {"torch", "numpy", "matplotlib", "sklearn"}


def test_public_names_are_there_and_documented() -> None:
    for name in vitscratch.__all__:
        thing = getattr(vitscratch, name)
        assert not inspect.ismodule(thing)
        assert name in ("__version__", "PRESETS") or inspect.getdoc(thing), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vitscratch.nothing  # noqa: B018


def test_public_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    names = {alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names | {"__version__"} == set(vitscratch.__all__)


def test_public_methods_and_functions_have_docstrings() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    hidden = not isinstance(method, ast.FunctionDef) or method.name.startswith("_")
                    if hidden or method.name in ("forward", "run", "backward"):  # the class says what they do
                        continue
                    assert ast.get_docstring(method), f"{path}: {node.name}.{method.name}"


def test_the_heart_fits_on_a_few_screens() -> None:
    lines = {name: len((PACKAGE / f"{name}.py").read_text().splitlines()) for name in HEART}
    assert sum(lines.values()) <= 550, lines


def test_nothing_postpones_annotations() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert "from __future__ import annotations" not in path.read_text(), path


def test_the_shapes_are_checked_in_these_tests() -> None:
    """A planted violation: without the import hook of conftest.py nobody would object."""
    import torch

    with pytest.raises(Exception, match="Type-check error"):
        vitscratch.EncoderBlock(15, 3, 29)(torch.zeros(2, 15))


def test_version_comes_from_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "vitscratch/__init__.py"
    assert f"## {vitscratch.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_has_a_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (requirement for group in groups for requirement in group):
        assert ">=" in requirement or requirement.startswith("vitscratch["), requirement
