"""Make the parts of the site that come from the package: tables of rules, parameters, rooms and lessons."""

import ast
import inspect
import math
import re
from pathlib import Path

import nbformat

from stacklib.recipe import rules
from stacklib.recipe.batch_job import BatchJob
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils.parameters import Parameter

ROOT = Path(__file__).resolve().parents[1]


def parts() -> dict[str, str]:
    """Return the Markdown of each part by file name."""
    return {
        "rules.md": getattr(rules, "rules_table", str)(),
        "add_rule.md": inspect.getdoc(rules) or "",
        "job.md": parameter_table(Job.parameters()),
        "recipe.md": parameter_table(Recipe.parameters()),
        "batch.md": parameter_table(BatchJob.parameters()),
        "walk.md": lessons(),
        "rooms.md": rooms(),
        "benchmarks.md": benchmarks(),
    }


def parameter_table(parameters: dict[str, Parameter]) -> str:
    """Return one row for each parameter: name, default, allowed values and meaning."""
    lines = ["| name | default | allowed | meaning |", "|---|---|---|---|"]
    for name, parameter in parameters.items():
        default = "empty" if parameter.default == "" else f"`{parameter.default}`"
        lines.append(f"| `{name}` | {default} | {allowed(parameter)} | {parameter.help} |")
    return "\n".join(lines)


def allowed(parameter: Parameter) -> str:
    """Return the values that a parameter can have, in words."""
    if parameter.choices:
        return ", ".join(f"`{choice}`" for choice in parameter.choices)
    if parameter.kind is bool:
        return "`True` or `False`"
    if math.isinf(parameter.low):
        return "text" if parameter.kind is str else "text or list"
    return f"{parameter.low:g} to {parameter.high:g} {parameter.unit}".strip()


def lessons() -> str:
    """Return one row for each notebook, from its first cell."""
    lines = ["| notebook | what you do |", "|---|---|"]
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        text = nbformat.read(path, as_version=4).cells[0].source
        done = re.search(r"\*\*What you(?:'ll)? do:\*\* (.+?)(?=\n- |\n\n|\Z)", text, re.DOTALL)
        words = " ".join(done[1].split()) if done else ""
        lines.append(f"| {{doc}}`{path.stem}` | {words[:1].upper()}{words[1:]} |")
    return "\n".join(lines)


def rooms() -> str:
    """Return one row for each package in the order of imports, with the first line of its docstring."""
    house = ast.parse((ROOT / "tests" / "test_house.py").read_text(encoding="utf-8"))
    listed = next(
        ast.literal_eval(node.value)
        for node in house.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS"
    )
    lines = ["| package | holds |", "|---|---|"]
    for name in listed:
        path = ROOT / "stacklib" / name
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        text = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
        shown = name + "/" if path.is_dir() else file.name
        lines.append(f"| `{shown}` | {' '.join(text.split())} |")
    return "\n".join(lines)


def benchmarks() -> str:
    """Return the page of the benchmarks, one level deeper and without its title."""
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").partition("\n")[2]
    return re.sub(r"^##", "###", text, flags=re.MULTILINE)
