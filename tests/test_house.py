"""The house: a package imports only from packages above it, no module imports itself by a detour."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "stacklib"

#: The rooms, in the order in which a frame goes through them. `errors` is for everyone.
ROOMS = [
    "errors",
    "utils",
    "formats",
    "frames",
    "recipe",
    "measurement",
    "normalization",
    "rejection",
    "kernel",
    "spatial",
    "output",
    "simulate",
    "integration",
    "drizzle",
    "figures",
    "explore",
    "notebook",
    "lessons",
    "panels",
    "batch",
    "watch",
    "commands",
    "__init__",
    "cli",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, wherever in the file, for types only included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inside or {node.module}
    return {name for name in found if name.partition(".")[0] == "stacklib"}


IMPORTS = {name: imports(path) for name, path in MODULES.items()}


def room(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def test_every_module_is_in_a_room():
    assert {room(name) for name in MODULES} == set(ROOMS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_upward_in_the_list(name):
    place = ROOMS.index(room(name))
    wrong = {other for other in IMPORTS[name] if ROOMS.index(room(other)) > place}
    assert not wrong, f"{name} imports {wrong} from below it"


def test_no_circles():
    TopologicalSorter(IMPORTS).prepare()


def test_rooms_can_be_taken_in_at_a_glance():
    root = [name for name in MODULES if name.count(".") == 1 and MODULES[name].stem != "__init__"]
    assert len(root) + 1 <= 4
    for folder in {path.parent for path in MODULES.values()} - {PACKAGE}:
        assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= 12, folder


def test_no_function_takes_more_than_eight_positional_arguments():
    many = {
        f"{name}.{node.name}"
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if len(node.args.posonlyargs) + len(node.args.args) > 8
    }
    assert not many, "arrays that belong together travel as a NamedTuple; options go by keyword"
