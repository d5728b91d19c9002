"""Make the parts of the site that come from elsewhere: tables of rules, parameters and notebooks."""

import inspect
import re
from pathlib import Path

from stacklib.notebook.parameters import cell_parameters
from stacklib.recipe import rules
from stacklib.recipe.batch_job import BatchJob
from stacklib.recipe.drizzle_job import DrizzleJob
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils.parameters import Parameter

ROOT = Path(__file__).resolve().parents[1]


def parts() -> dict[str, str]:
    """Return the Markdown of each part by file name."""
    return {
        "rules.md": rules.rules_table(),
        "add_rule.md": inspect.getdoc(rules) or "",
        "job.md": parameter_table(Job.parameters()),
        "recipe.md": parameter_table(Recipe.parameters()),
        "drizzle.md": parameter_table(cell_parameters(DrizzleJob)),
        "batch.md": parameter_table(BatchJob.parameters()),
        "lessons.md": re.sub(r"`(\d_\w+)\.ipynb`", r"{doc}`\1`", table("Notebooks")),
        "walk.md": section("Workflow"),
        "rooms.md": table("The code"),
        "benchmarks.md": benchmarks(),
    }


def parameter_table(parameters: dict[str, Parameter]) -> str:
    """Return one row for each parameter: name, default with allowed values, and meaning."""
    lines = ["| name | default | meaning |", "|---|---|---|"]
    for name, parameter in parameters.items():
        default = "empty" if parameter.default == "" else f"`{parameter.default}`"
        lines.append(f"| `{name}` | {default}{allowed(parameter)} | {parameter.help} |")
    return "\n".join(lines)


def allowed(parameter: Parameter) -> str:
    """Return the values that a parameter can have, on a line of their own."""
    if parameter.choices:
        return "<br>of " + ", ".join(f"`{choice}`" for choice in parameter.choices)
    if parameter.kind in (bool, str, list) or parameter.high > 1e4:
        return ""
    return f"<br>{parameter.low:g} to {parameter.high:g} {parameter.unit}".rstrip()


def section(title: str) -> str:
    """Return a section of the README, without its heading."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n## {title}\n")[2]
    if not text:
        raise ValueError(f"README.md has no section {title!r}, expected one for the site")
    return text.partition("\n## ")[0].strip()


def table(title: str) -> str:
    """Return the first table of a section of the README."""
    return re.search(r"^\|.+?(?=\n\n)", section(title), re.DOTALL | re.MULTILINE)[0]


def benchmarks() -> str:
    """Return the page of the benchmarks, one level deeper and without its title."""
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").partition("\n")[2]
    return re.sub(r"^##", "###", text, flags=re.MULTILINE)
