"""The lessons of the first notebook: what its texts claim is true of its experiments."""

from __future__ import annotations

import matplotlib.figure
import numpy as np
import pytest

import stacklib as sl
from stacklib import lessons
from stacklib.lessons import plots as lesson_plots
from stacklib.lessons import trail_plots
from stacklib.lessons.lesson import LEFT_OUT
from stacklib.recipe.rules import RULES


@pytest.fixture(scope="module")
def lesson() -> lessons.Lesson:
    return lessons.start()


@pytest.fixture(scope="module")
def faint() -> lessons.FaintTrail:
    return lessons.faint_trail()


def figures(lesson: lessons.Lesson) -> dict[str, matplotlib.figure.Figure]:
    special = {
        "figure_small_stacks": lambda: lesson_plots.figure_small_stacks(trials=200),
        "figure_rounds": lambda: lesson_plots.figure_rounds(lesson.story()),
    }
    usual = {
        name: lambda name=name: getattr(lesson_plots, name)(lesson)
        for name in lesson_plots.__all__
        if name not in special
    }
    return {name: draw() for name, draw in (usual | special).items()}


def test_every_figure_has_a_title_labels_and_draws(lesson):
    for name, figure in figures(lesson).items():
        assert figure.get_suptitle(), name
        figure.canvas.draw()
        for axes in figure.axes:
            labels = axes.get_xlabel() + axes.get_ylabel()
            assert labels or axes.get_title(), name


@pytest.mark.parametrize("frames", [8, 60])
def test_figures_draw_with_few_and_many_frames(frames):
    for figure in figures(lessons.start(frames, seed=1)).values():
        figure.canvas.draw()


@pytest.mark.parametrize(("name", "value"), [("count", 7), ("count", "20"), ("seed", -1), ("seed", 0.5)])
def test_wrong_parameters_are_refused_by_name(name, value):
    with pytest.raises(sl.RecipeError, match=rf"{name}: got"):
        lessons.start(**{name: value})


def test_noise_falls_as_the_square_root(lesson):
    deviations = lesson.deviations()
    assert deviations.std() == pytest.approx(1, abs=0.01)
    assert deviations.mean(axis=0).std() == pytest.approx(20**-0.5, rel=0.02)
    # The efficiency of the median of 20 normal samples is 0.681.
    assert np.median(deviations, axis=0).std() == pytest.approx((20 * 0.681) ** -0.5, rel=0.02)


def test_one_hit_hides_another_from_sigma_clipping(lesson):
    story = lesson.story("sigma")
    assert [round_.dropped for round_ in story.rounds] == [(3,), (6,), ()]
    sigma = np.median(lesson.clean.sigma(0))
    first, second = ((r.upper - r.centre) / 2.9 / sigma for r in story.rounds[:2])
    assert first == pytest.approx(6, abs=0.3) and second == pytest.approx(1.9, abs=0.1)
    assert lesson.story("winsorized_sigma").rounds[0].dropped == (3, 6)
    # The answer to an exercise.
    assert lesson.story("sigma", sigma_high=4.0).rounds[-1].verdict[6] == lesson.story("none").verdict[6]


def test_what_each_rule_makes_of_the_pixel(lesson):
    sky, sigma = lesson.clean.sky[0, 0], np.median(lesson.clean.sigma(0))
    ends = {rule: (lesson.story(rule).value - sky) / sigma for rule in RULES}
    assert ends.pop("none") == pytest.approx(1.6, abs=0.1)
    assert ends.pop("min_max") > 0.2 and ends.pop("averaged_sigma") > 0.2
    assert all(abs(value) < 0.1 for value in ends.values())


def test_what_leaving_out_a_step_does(lesson):
    noise = {name: lesson.sky_noise(name) for name in LEFT_OUT}
    assert noise["nothing left out"] == pytest.approx(0.27, abs=0.005)
    assert noise["equal weights"] == pytest.approx(0.28, abs=0.005)
    assert noise["no rejection"] > 0.4
    # Three of twenty frames are thrown away whole.
    assert lesson.results["no normalization"].rejection_high.mean() == pytest.approx(0.15, abs=0.01)


def test_found_outliers_are_counted(lesson):
    strong, clear, weak, lost = lesson.found().splitlines()
    assert float(strong.split()[-2]) > 99 and float(clear.split()[-2]) > 98
    assert 70 < float(weak.split()[-2]) < 95
    assert lost.startswith("rejected high where nothing was planted: 0.")


def test_the_table_of_rules_names_them_all():
    _, _, *rows = lessons.rules().data.splitlines()
    assert [row.split(" | ")[0] for row in rows] == [f"| {spec.label}" for spec in RULES.values()]


@pytest.fixture(scope="module")
def clouds() -> lessons.Clouds:
    return lessons.changing_night()


def test_stars_follow_the_light_and_the_spread_does_not(clouds):
    true, found = clouds.night.transparency, clouds.matching()
    assert np.abs(found["its stars"] / true - 1).max() < 0.07
    assert np.abs(found["its spread"] / true - 1).max() > 1
    cloudiest = int(np.argmin(true))
    assert true[cloudiest] < 0.5 and found["its spread"][cloudiest] > 1


def test_both_ways_miss_the_truth_as_the_text_says(clouds):
    assert clouds.star_bias("classic") == pytest.approx(-0.24, abs=0.03)
    assert clouds.gradient("classic") == pytest.approx(3, abs=0.3)
    assert abs(clouds.star_bias("measured")) < 0.01
    assert clouds.gradient("measured") < 0.15


def test_figures_of_the_changing_night_draw(clouds):
    for name in lessons.changing_plots.__all__:
        figure = getattr(lessons.changing_plots, name)(clouds)
        assert figure.get_suptitle(), name
        figure.canvas.draw()
        for axes in figure.axes:
            assert axes.get_xlabel() + axes.get_ylabel() or axes.get_title(), name


def test_a_changing_night_takes_the_parameters_of_the_notebook():
    with pytest.raises(sl.RecipeError, match="count: got"):
        lessons.changing_night(7)


def test_a_faint_trail_is_found(faint):
    left = {name: faint.left(name) for name in faint.results}
    # Notebook 0 says so.
    assert left["no rejection"] == 100
    assert left["the rule alone"] == pytest.approx(88, abs=1)
    assert abs(left["footprints: trails"]) < 0.5
    (trail,) = faint.results["footprints: trails"].trails
    assert trail["peak"] == pytest.approx(2, abs=0.3) and trail["length"] == pytest.approx(277, abs=4)
    assert "_0006_" in trail["file"]


def test_the_sum_along_a_trail_shows_it(faint):
    residual, (rows, columns) = faint.residual(), faint.rows()
    assert columns.size == 220
    assert residual[rows, columns].mean() == pytest.approx(2, abs=0.2)
    assert abs(residual[rows + 10, columns].mean()) < 0.2
    for figure in (trail_plots.figure_along(faint), trail_plots.figure_faint_trail(faint)):
        figure.canvas.draw()
        assert figure.get_suptitle()
        assert all(axes.get_xlabel() + axes.get_ylabel() or axes.get_title() for axes in figure.axes)


def test_what_a_trail_adds_is_its_light(faint):
    added = faint.added("no rejection")
    share = faint.trail.profile(*added.shape) * faint.trail.peak / len(faint.night.frames)
    known = faint.results["no rejection"].coverage[0] == 1
    # The frame has a little more or less weight than the others.
    assert added[known].sum() == pytest.approx(share[known].sum(), rel=0.25)
    assert np.corrcoef(added[known], share[known])[0, 1] > 0.99
