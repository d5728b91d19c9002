"""One `RuleSpec` a rule: nothing else lists rules, and a rule more is found wherever rules are read."""

from __future__ import annotations

import ast
import json
import re
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numba
import numpy as np
import pytest
import reference
from conftest import ROOT, SAMPLES

from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES, rule_in_words, rules_table
from stacklib.rejection.clipping import clip, note, note_limits
from stacklib.rejection.estimators import median
from stacklib.rejection.registry import COMPILED
from stacklib.rejection.sorting import LANES

# nothing else lists rules ------------------------------------------------------------------------

SOURCES = [
    path
    for path in sorted((ROOT / "stacklib").rglob("*.py"))
    if path.parent.name != "rejection" and path != ROOT / "stacklib" / "recipe" / "rules.py"
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def rules_named(source: str) -> list[str]:
    """Comparisons, sequences, keys and indices in which rules are named."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            parts = node.elts
        elif isinstance(node, ast.Dict):
            parts = node.keys
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        else:
            continue
        names = {part.value for part in parts if isinstance(part, ast.Constant)} & RULES.keys()
        text = ast.unparse(node)
        # Normalization, weights and noise have a "none" of their own.
        if names - {"none"} or (names and re.search("rule|rejection", text)):
            found.append(text)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_names_rules(path):
    assert not rules_named(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_names_rules(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not rules_named("".join(cell["source"]))


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ('if rule == "gesd": pass', True),
        ('if recipe.rejection != "none": pass', True),
        ('slow = rule in ("linear_fit", "gesd")', True),
        ('grids = {"sigma": 1}', True),
        ('least = NEEDED["chauvenet"]', True),
        ('match rule:\n    case "ccd_noise": pass', True),
        ('recipe = Recipe(rejection="sigma", weights="none")', False),
        ('if weights == "none": pass', False),
        ('modes = ("none", "additive")', False),
    ],
)
def test_the_search_finds_what_it_looks_for(source, wrong):
    assert bool(rules_named(source)) == wrong


# the specs ---------------------------------------------------------------------------------------


def test_every_rule_is_compiled_and_has_a_reference():
    assert list(RULES) == list(COMPILED) == list(reference.RULES)
    assert all(RULES[name] is rule.spec and name == rule.spec.name for name, rule in COMPILED.items())


@pytest.mark.parametrize("spec", RULES.values(), ids=lambda spec: spec.name)
def test_specs_agree_with_the_parameters(spec):
    known = Recipe.parameters()
    assert set(spec.limits) <= set(spec.parameters) <= set(known)
    assert set(spec.grid) <= set(spec.parameters) and bool(spec.grid) == spec.rejects
    assert len(spec.limits) in (0, 2) and bool(spec.limits) == bool(spec.limits_in)
    for name, values in spec.grid.items():
        assert [known[name].check(value) for value in values] == list(values) == sorted(values)
    recipe = Recipe(rejection=spec.name)
    assert rule_in_words(spec.name, recipe.to_dict()).startswith(spec.label)
    few = recipe.warnings_for(max(spec.least_frames - 1, 1))
    assert any("needs at least" in text for text in few) == (spec.least_frames > 1)


def test_every_parameter_belongs_to_a_rule():
    used = {name for spec in RULES.values() for name in spec.parameters}
    heads = {name for name in Recipe.parameters() if name.startswith(tuple(RULES))}
    assert heads <= used


def test_the_table_shows_all_rules():
    table, *details = rules_table().split("\n## ")
    rows = table.strip().splitlines()[2:]
    for spec, row, text in zip(RULES.values(), rows, details, strict=True):
        # A limit of 2.9 sigma is out of reach of 8 samples, see the test of warnings.
        least = 9 if spec.bounded else spec.least_frames
        assert row == f"| `{spec.name}` | {spec.summary} | {spec.use} | {least} |"
        assert text.startswith(f"`{spec.name}`") and spec.formula in text and spec.source in text
        for name in spec.parameters:
            assert f"`{name}` ({Recipe.parameters()[name].default}".removesuffix(".0") in text


# a rule more -------------------------------------------------------------------------------------

PARAMETERS = """
    toy_low: float = number_field(4.0, 0.5, 9.0, "toy: reject this far below the median.", "deviations")
    toy_high: float = number_field(3.0, 0.5, 9.0, "toy: reject this far above the median.", "deviations")
"""
SPEC = """
        RuleSpec(
            name="toy",
            summary="Clip once in units of the mean deviation.",
            formula="(m - x) / d > toy_low or (x - m) / d > toy_high",
            use="tests",
            source="this test",
            limits=("toy_low", "toy_high"),
            limits_in="mean deviations",
            grid={"toy_low": (3.0, 5.0), "toy_high": (2.0, 3.0, 4.0)},
            least_frames=4,
            step="glance",
            centre="middle",
        ),
"""
#: What a developer types: module, line after which it goes, text.
EDITS = {
    "stacklib.recipe.rules": [
        ('clip_high: bool = switch_field(True, "Reject samples that are too bright.")\n', PARAMETERS),
        ("    for spec in (\n", SPEC),
    ],
    "stacklib.rejection.registry": [
        ("    for rule in (\n", "CompiledRule(spec=RULES['toy'], function=toy),\n"),
    ],
}


@numba.njit(error_model="numpy")
def toy(ordered, count, limits, table, max_iterations, low, high, detail):
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            x = ordered[b, :, p]
            lo, hi = 0, count[b, p]
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)
            if hi >= 4 and max_iterations >= 1:
                m, d = median(x, lo, hi), 0.0
                for i in range(hi):
                    d += abs(x[i] - m) / hi
                if d > 0.0:
                    note_limits(detail[b], p, m, d, limits)
                    lo, hi = clip(x, lo, hi, m, d, limits[0], limits[1])
            low[b, p], high[b, p] = lo, hi


def slow_toy(x, recipe, notes, max_iterations):
    if len(x) < 4 or max_iterations < 1:
        return x
    m = reference.median(x)
    d = reference.mean([abs(value - m) for value in x])
    if notes.is_zero(d, x):
        return x
    low, high = reference.limits(recipe, recipe.toy_low, recipe.toy_high)
    return reference.drop_beyond(x, m, d, low, high, notes)


class Editor(SourceFileLoader):
    """Imports a module of the package as it is after `EDITS`."""

    def exec_module(self, module: ModuleType) -> None:
        source = Path(self.path).read_text(encoding="utf-8")
        for line, text in EDITS[module.__name__]:
            assert source.count(line) == 1, line
            source = source.replace(line, line + text)
        module.toy = toy
        exec(compile(source, self.path, "exec"), module.__dict__)

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return spec_from_loader(name, cls(name, FILES[name])) if name in EDITS else None


FILES = {name: find_spec(name).origin for name in EDITS}


@pytest.fixture(scope="module")
def grown():
    """The package as it is imported when somebody has added a rule."""

    def mine(name: str) -> bool:
        return name.partition(".")[0] == "stacklib"

    with pytest.MonkeyPatch.context() as patch:
        usual = {name: module for name, module in sys.modules.items() if mine(name)}
        for name in usual:
            patch.delitem(sys.modules, name)
        patch.setattr(sys, "meta_path", [Editor, *sys.meta_path])
        patch.setitem(reference.RULES, "toy", slow_toy)
        import stacklib
        from stacklib.panels import RejectionExplorer
        from stacklib.recipe import rules

        assert rules.RULES is not RULES
        frames = stacklib.open_frames(SAMPLES / "M13" / "4_Registered")
        yield SimpleNamespace(sl=stacklib, rules=rules, RejectionExplorer=RejectionExplorer, frames=frames)
        for name in [name for name in sys.modules if mine(name)]:
            del sys.modules[name]


REGION = (60, 50, 96, 80)


def test_a_new_rule_is_in_recipe_help_and_documentation(grown):
    known = grown.sl.Recipe.parameters()
    assert "toy" in known["rejection"].choices and "toy_low" in known
    recipe = grown.sl.Recipe(rejection="toy", toy_high=2.5)
    assert recipe.in_words(12)[:5] == [
        "rejection: toy",
        "clip_low: yes",
        "clip_high: yes",
        "toy_low: 4 deviations",
        "toy_high: 2.5 deviations",
    ]
    assert "toy_high: 2.5  # toy: reject this far above" in recipe.to_yaml()
    assert grown.rules.rule_in_words("toy", recipe.to_dict()) == "toy 4 / 2.5"
    text = grown.rules.rules_table()
    assert "| `toy` | Clip once in units of the mean deviation. | tests | 4 |" in text
    assert "`toy_low` (4), `toy_high` (3)" in text
    assert recipe.warnings_for(3)[0].startswith("toy needs at least 4 frames")
    with pytest.raises(ValueError, match="toy"):
        Recipe(rejection="toy")


def test_a_new_rule_equals_its_reference(grown):
    rng = np.random.default_rng(3)
    recipe = grown.sl.Recipe(rejection="toy", toy_high=2.0)
    for frames in (2, 3, 4, 9, 30):
        stack = rng.normal(0.2, 0.01, (frames, 4, 5)).astype(np.float32)
        stack[0, 0] = 0.9
        expected, margin = reference.reject(stack, recipe)
        sure = margin > 1e-9
        assert sure.mean() > 0.9
        assert np.array_equal(grown.sl.reject(stack, recipe)[:, sure], expected[:, sure])
        assert expected.all() == (frames < 4)


def test_a_new_rule_is_in_the_panel(grown):
    recipe = grown.sl.Recipe(rejection="toy", weights="none")
    panel = grown.RejectionExplorer(grown.frames, recipe, region=REGION)
    assert panel.widget is not None
    assert (
        panel._panel.controls.each["rejection"].value == "toy"
        and "toy" in panel._panel.controls.each["rejection"].options
    )
    assert [control.name for control in panel._panel.controls.rule_box.children] == ["toy_low", "toy_high"]
    panel._panel.controls.each["toy_high"].number = 2.0
    assert panel.recipe.toy_high == 2.0 and panel.result.rejected_high.mean() > 0


def test_a_new_rule_is_explained(grown):
    recipe = grown.sl.Recipe(rejection="toy", toy_high=2.0, toy_low=2.0)
    text = str(grown.sl.explain(grown.frames, recipe, x=100, y=90))
    assert ": toy, 12 frames" in text and re.search(r"Glance 1: middle 0\.\d+, keeps 0\.", text)
    assert "rejected high in glance 1: above" in text or "rejected low in glance 1: below" in text


def test_a_new_rule_is_swept_and_advised(grown):
    sl, frames = grown.sl, grown.frames
    recipe = sl.Recipe(rejection="toy", weights="none")
    swept = sl.sweep(frames, {"rejection": ("none", "toy")}, recipe, region=REGION, progress=False)
    assert list(swept.table["rejection"]) == ["none", "toy"]
    advice = sl.advise(frames, recipe, region=REGION, progress=False)
    assert advice.grid == dict(grown.rules.RULES["toy"].grid) and advice.recipe.rejection == "toy"
    assert "toy_high" in advice.reason
