"""Files of exercises: stubs for students, what a student's file is about, and the library's answers."""

import ast
import re
import shutil
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from inspect import getsource, getsourcefile
from pathlib import Path

from vitscratch.exercises.catalog import EXERCISES
from vitscratch.exercises.exercise import Exercise

STUBS = Path(__file__).parent / "stubs"
SOLUTIONS = Path(__file__).parent / "solutions"

# Parts of a model contain each other, so a file with a whole model is about the model, whatever else is in it.
_WHOLE_MODEL = "vision_transformer"


def write_stubs(folder: Path) -> tuple[list[str], list[str]]:
    """Write the stubs of all exercises, and a README.md, into a folder; files that are there stay as they are.

    Args:
        folder: made if it does not exist.

    Returns:
        Names of the files that were written, and of those that were there.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, kept = [], []
    for name in ["README.md", *(exercise.file_name for exercise in EXERCISES)]:
        if (folder / name).exists():
            kept.append(name)
        else:
            shutil.copyfile(STUBS / name, folder / name)
            written.append(name)
    return written, kept


def find_exercises(folder: Path) -> dict[Exercise, Path]:
    """The exercises that a folder has files for, in order: by the name of the file, else by what it defines."""
    found = {}
    for exercise in EXERCISES:
        paths = [folder / exercise.file_name, folder / f"{exercise.name}.py"]
        if there := [path for path in paths if path.is_file()]:
            found[exercise] = there[0]
    for path in sorted(folder.glob("*.py")):
        if path.is_file() and exercise_of_name(path) is None and (other := _exercise_of_text(path)) is not None:
            found.setdefault(other, path)
    return {exercise: found[exercise] for exercise in EXERCISES if exercise in found}


def overlooked(found: dict[Exercise, Path]) -> Iterator[str]:
    """A line for each file of Python beside those found that is about one of their exercises: an older one, a copy."""
    folders = {path.parent for path in found.values()}
    for path in sorted(path for folder in folders for path in folder.glob("*.py")):
        if path.is_file() and path not in found.values():
            exercise = exercise_of_name(path) or _exercise_of_text(path)
            if exercise in found:
                yield f"{path.name} is not checked: {found[exercise].name} is the file of exercise {exercise.name}"


def exercise_of(path: Path) -> Exercise:
    """The exercise that a file is about: by its name, else by what it defines; it is read, not run.

    Raises:
        ValueError: it is about none, or no Python, or no file.
    """
    check_regular(path)
    if exercise := exercise_of_name(path) or _exercise_of_text(path):
        return exercise
    try:
        ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{path}: no exercise has that name, and what it defines cannot be read ({error}); "
            f"name it as its exercise, for instance {EXERCISES[0].file_name}"
        ) from error
    known = ", ".join(name for exercise in EXERCISES for name in exercise.defines)
    raise ValueError(f"{path}: no exercise; expected a file that defines one of {known}")


def check_regular(path: Path) -> None:
    """Refuse what is no file: a pipe or a device could be read for ever.

    Raises:
        ValueError: always then.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file; expected a file of Python")


def nearby(path: Path) -> Path | None:
    """An exercise, or a folder of some, that is called as a path that is not there, or nearly so, and lies close by."""
    if not path.parent.is_dir():
        folder = nearby(path.parent)
        if folder is not None and folder.is_dir() and (one := _named(path.name, [folder])):
            return one
        return _named(path.name, _around(Path()))
    return _named(path.name, _around(path.parent))


def _around(here: Path) -> list[Path]:
    """A folder, the two that it is in, and those below it and beside it."""
    above = [here, Path(".."), Path("../..")]
    return [*above, *(one for folder in above[:2] for one in sorted(folder.glob("*/")))]


def _named(wanted: str, folders: list[Path]) -> Path | None:
    """What is called so in these folders: files called as the stubs are, and the folders that have some."""
    known: dict[str, Path] = {}
    for folder in folders:
        files = [file for one in EXERCISES if (file := folder / one.file_name).is_file()]
        for one in [*files, folder] if files else []:
            name = one.resolve().name
            for key in (name, _plain(name)):
                known.setdefault(key, one)
    matches = (name for near in (wanted, _plain(wanted)) for name in get_close_matches(near, known, n=1, cutoff=0.8))
    return next((known[name] for name in matches), None)


def _plain(name: str) -> str:
    """ "04_attention.py" -> "attention"."""
    return re.sub(r"^\d+_", "", name.removesuffix(".py"))


def exercise_of_name(path: Path) -> Exercise | None:
    """The exercise with that file name, NN_name.py or name.py."""
    return next((one for one in EXERCISES if path.name in (one.file_name, f"{one.name}.py")), None)


def is_stub(path: Path, exercise: Exercise) -> bool:
    """Whether nothing was written yet: the same program as the stub, comments and empty lines apart."""
    stub = STUBS / exercise.file_name
    try:
        return stub.is_file() and ast.dump(ast.parse(path.read_bytes())) == ast.dump(ast.parse(stub.read_bytes()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def solution(exercise: Exercise) -> str:
    """The library's code for an exercise, with a line that says where it stands, and what of it nobody asked for."""
    path = SOLUTIONS / exercise.file_name
    spec = spec_from_file_location(f"solution_{exercise.name}", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    parts = []
    package = Path(__file__).parents[1]
    for name in exercise.defines:
        thing = getattr(module, name)
        own = thing.__module__ == module.__name__
        source = path if own else Path(getsourcefile(thing) or path)
        text = path.read_text(encoding="utf-8") if own else getsource(thing)
        where = source.relative_to(package.parent).as_posix() if source.is_relative_to(package) else source.name
        more = "" if own else " ".join((module.__doc__ or "").split()).removeprefix("The library's.").strip()
        note = f"\n# {more}" * bool(more)
        if (part := f"# {where}{note}\n\n{text.rstrip()}\n") not in parts:
            parts.append(part)
    return "\n\n".join(parts)


def _exercise_of_text(path: Path) -> Exercise | None:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    own, imported = set(_defined(tree.body)), set(_imported(tree.body))
    whole = [one for one in EXERCISES if set(one.defines) <= own]
    partly = [one for one in EXERCISES if set(one.defines) & own]
    brought = [one for one in EXERCISES if set(one.defines) <= imported]
    candidates = whole or partly or brought
    names = [one.name for one in EXERCISES]
    until = names.index(_WHOLE_MODEL) if _WHOLE_MODEL in names else len(names)
    parts = [one for one in candidates if names.index(one.name) <= until]
    return max(parts or candidates, key=lambda one: one.number, default=None)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those that run when the file is imported, so not the ones inside functions and classes."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for inner in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, inner, []))


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in _statements(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    for node in _statements(body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
