"""Trails that the user names by their place."""

import pytest

import stacklib as sl
from stacklib.recipe.trail_names import TrailName
from stacklib.simulate import Trail, simulate_frames
from stacklib.spatial.ignored_trails import find_ignored
from stacklib.spatial.lines import Line

NAMES = ["a.fits", "b.fits"]


def line(x0, y0, x1, y1, width=6.0):
    return Line(x0, y0, x1, y1, width, 3.0, 20.0)


LINES = {1: [line(0, 10.3, 199.4, 60), line(80, 0, 90, 149), line(0, 40, 199, 90)]}


@pytest.mark.parametrize(
    ("name", "ignored", "note"),
    [
        ("b.fits:0,10-199,60", {(1, 0)}, None),
        ("b.fits:0,40-199,90", {(1, 2)}, None),
        # From the other end, some pixels off.
        ("b.fits:91,147-79,2", {(1, 1)}, None),
        ("b.fits:0,25-199,75", set(), "no such trail was found: b.fits:0,25-199,75; see"),
        ("a.fits:0,10-199,60", set(), "no such trail was found: a.fits"),
        ("c.fits:0,10-199,60", set(), "no such trail was found: c.fits"),
        ("b.fits:80,0-83,50", {(1, 1)}, "ends have changed: b.fits:80,0-83,50 is now 80,0-90,149; check"),
        # One point is no line.
        ("b.fits:80,0-80,0", {(1, 1)}, "ends have changed"),
    ],
)
def test_a_place_means_the_trail_there(name, ignored, note):
    found, notes = find_ignored(TrailName.read(name, "ignore_trails"), LINES, NAMES)
    assert found == ignored
    assert len(notes) == (note is not None)
    assert note is None or f"ignore_trails: {note}" in notes[0]


def test_a_name_comes_back():
    name = TrailName.at("a, b:c.fits", (-0.52, 10.5, 199.49, 3.2))
    assert str(name) == "a, b:c.fits:0,10-199,3"
    assert TrailName.read([str(name)], "ignore_trails") == [name]


@pytest.mark.filterwarnings("ignore::stacklib.StacklibWarning")
def test_the_same_trail_stays_with_other_limits(tmp_path):
    """However many are found, and in whichever order."""
    ends = [
        ((-20, 30), (220, 110)),
        ((40, -20), (60, 180)),
        ((-20, 140), (220, 20)),
        ((150, -20), (190, 180)),
    ]
    trails = [Trail(4, *each, peak=peak) for each, peak in zip(ends, (5.0, 2.5, 3.0, 4.0), strict=True)]
    simulate_frames(10, 160, 200, 1, "field", 8, trails=trails, cloudy=0).save(tmp_path)
    recipe = sl.Recipe(footprints="trails", weights="exposure")
    name = sl.integrate(tmp_path, recipe, progress=False).trails["name"][-1]
    place = TrailName.read(name, "ignore_trails")[0]
    for sigma_high in (2.5, 2.0):
        other = recipe.replace(sigma_high=sigma_high, ignore_trails=name)
        kept = [trail for trail in sl.integrate(tmp_path, other, progress=False).trails if not trail["used"]]
        assert [trail["reason"] for trail in kept] == ["ignored"]
        assert [kept[0][end] for end in ("x0", "y0", "x1", "y1")] == pytest.approx(list(place[1:]), abs=6)
