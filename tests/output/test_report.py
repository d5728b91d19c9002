"""Report of a run, and the rejection expected without outliers."""

import json
import math
import re

import numpy as np
import pytest

import stacklib as sl
from stacklib.kernel.expectation import expected_noise_factor, expected_rejection
from stacklib.output import report
from stacklib.output.provenance import collect
from stacklib.simulate import Session, simulate_frames
from stacklib.utils.labels import clipped

RECIPE = sl.Recipe(rejection="winsorized_sigma", weights="none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve color frames, one with a bright trail, one with clouds, with invented headers."""
    folder = tmp_path_factory.mktemp("report") / "4_Registered"
    simulate_frames(
        12,
        64,
        80,
        3,
        dither=2,
        hot_pixels=0,
        cloudy=[7],
        trails=2,
        session=Session(object_name="M101", camera="ZWO ASI294MC Pro", filter="L", exposure=300, cadence=310),
        seed=8,
    ).save(folder)
    return folder


@pytest.fixture(scope="module")
def result(folder):
    return sl.integrate(folder, RECIPE, progress=False)


def section(text, title):
    """Return the lines below a title, up to the next blank line."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    end = lines.index("", start) if "" in lines[start:] else len(lines)
    return lines[start + 1 : end]


def test_the_report_fits_on_a_page(result):
    text = result.report()
    assert all(len(line) <= 100 for line in text.splitlines())
    assert all(line == line.rstrip() for line in text.splitlines())
    assert text.endswith("\n") and "nan" not in text and "\n\n\n" not in text


def test_the_heading_says_what_was_integrated(result):
    lines = result.report().splitlines()
    assert lines[0] == "Integration of M101"
    assert "Frames     12 of 12, 1 h total (12 x 300 s)" in lines
    assert "Night      2021-08-15 (UTC 2021-08-15 21:10 to 22:11)" in lines
    assert "Camera     ZWO ASI294MC Pro, Simulated telescope" in lines
    assert "Filter     L" in lines
    assert "Image      80 x 64 pixels, 3 channels" in lines
    reference = result.preparation.frames[result.preparation.reference].name
    assert f"Reference  {reference} (level closest to the median of the frames)" in lines


def test_the_settings_are_told_in_words(result):
    lines = [line.strip() for line in section(result.report(), "Settings")]
    assert lines == result.recipe.in_words(12, len(result.image))


def test_the_table_has_a_row_for_each_frame(result):
    rows = section(result.report(), "      Frame")
    assert len(rows) == 12 + 3
    for i, row in enumerate(rows[:12]):
        number, name, weight, scale, _, _, low, high, *marks = row.split()
        assert int(number) == i + 1
        assert name == result.preparation.frames[i].name
        assert float(weight) == pytest.approx(result.preparation.weights[i].mean(), abs=5e-4)
        assert float(scale) == pytest.approx(result.preparation.scale[i].mean(), abs=5e-4)
        assert float(low) == pytest.approx(100 * result.rejected_low[i].mean(), abs=5e-3)
        assert float(high) == pytest.approx(100 * result.rejected_high[i].mean(), abs=5e-3)
        assert ("*" in marks) == (i == result.preparation.reference)
    assert f"{100 * result.rejected_high.mean():.2f}" in rows[12]


def test_measured_rejection_stands_beside_that_of_clean_frames(result):
    lines = section(result.report(), "Rejected samples")
    numbers = {line[:27].strip(): re.findall(r"[\d.]+ %", line) for line in lines}
    measured = [f"{100 * side.mean():.3f} %" for side in (result.rejected_low, result.rejected_high)]
    assert numbers["in these frames"] == measured
    assert numbers["expected without outliers"] == [
        f"{100 * part:.3f} %" for part in result.expected_rejection
    ]
    assert "no data (not counted above)" in "\n".join(lines)


def test_noise_before_and_after(result):
    lines = section(result.report(), "Noise")
    numbers = {line[:26].strip(): line[26:].split() for line in lines}
    assert [float(v) for v in numbers["after / before"]] == pytest.approx(list(result.noise_ratio), abs=5e-4)
    assert numbers["1/sqrt(12), equal frames"] == ["0.289"]
    # These weights do not need the noise of the frames.
    assert "expected, these frames" not in numbers
    assert "not known: the weights do not need the noise" in lines[-1]


def test_what_frames_allow_is_known_with_noise_weights(m101):
    allowed = m101.allowed_noise_ratio
    assert np.all(allowed > m101.expected_noise_ratio)
    assert np.all(np.abs(m101.noise_ratio / allowed - 1) < 0.1)


def test_frames_that_lost_much_are_pointed_out(m101):
    found = {(i + 1, side) for i, side, *_ in report.unusual_frames(m101)}
    # In the sample data, frame 7 has the brightest trail and frame 17 has clouds.
    assert found == {(7, "high"), (17, "low")}
    lines = " ".join(section(m101.report(), "Unusually high rejection"))
    assert "M101_Light_180s_0007_c_d_r.xisf" in lines and "M101_Light_180s_0017_c_d_r.xisf" in lines


def test_nothing_unusual_is_not_mentioned(folder):
    result = sl.integrate(folder, RECIPE.replace(rejection="none"), progress=False)
    text = result.report()
    assert report.unusual_frames(result) == []
    assert "Unusually" not in text and "left out" not in text and "Files" not in text


@pytest.mark.filterwarnings("ignore:1 of 12 frames are left out by min_weight")
def test_frames_left_out_and_their_reasons(folder, tmp_path):
    names = [path.name for path in sorted(folder.glob("*.xisf"))]
    table = "file,weight\n" + "".join(f"{name},{0.001 if i == 4 else 1}\n" for i, name in enumerate(names))
    (tmp_path / "weights.csv").write_text(table)
    recipe = RECIPE.replace(weights="csv", weight_file=str(tmp_path / "weights.csv"), min_weight=0.05)
    result = sl.integrate(folder, recipe, progress=False)
    text = result.report()
    assert "11 of 12, 55 min total (11 x 300 s)" in text
    (line, *_) = section(text, "Frames left out")
    assert line.strip().startswith(f"5 {names[4]}: ")
    assert result.preparation.excluded[4].split()[0] in line
    assert len(section(text, "      Frame")) == 11 + 3
    assert "(highest weight)" in text
    result.save(tmp_path)
    saved = result.saved.report.read_text()
    assert names[4] in saved


def test_notes_and_files(m13, tmp_path):
    m13.save(tmp_path, fits=True)
    text = m13.saved.report.read_text(encoding="utf-8")
    # Frame 10 was taken through a cloud, which the spread of frames does not tell.
    note = " ".join(section(text, "Notes"))
    assert "stars" in note and "preset: measured" in note
    lines = [line.strip() for line in section(text, f"Files in {tmp_path}")]
    assert lines == [path.name for path in (*m13.saved.images, m13.saved.table, m13.saved.report)]
    assert text.startswith(m13.report().rstrip("\n"))


def test_the_rescaling_is_told(m101):
    assert m101.range_factor != 1
    words = f"output range: rescaled as x * {m101.range_factor:.9g} + 0"
    assert words in m101.report()


def test_the_summary(m101):
    first, second, third = m101.summary.splitlines()
    assert first.startswith("20 of 20 frames, 1 h total (20 x 180 s)")
    assert "0.58 % low and 0.57 % high" in second and second.endswith("; 1.05 % for their neighbors")
    assert third.endswith("1/sqrt(20) is 0.224")


def test_numbers_hold_the_recipe_that_ran(result):
    found = json.loads(json.dumps(report.numbers(result)))
    assert found["rule"] == "winsorized_sigma" and sl.Recipe(**found["recipe"]) == result.recipe


def test_a_frame_that_is_gone_costs_only_its_noise(tmp_path):
    simulate_frames(6, 48, 48, 1).save(tmp_path)
    result = sl.integrate(tmp_path, RECIPE, progress=False)
    for path in tmp_path.glob("*.xisf"):
        path.unlink()
    lines = section(result.report(), "Noise")
    assert lines[0].split()[-1] == "-" and lines[2].split()[-1] == "-"
    said = " ".join(result.report().split())
    assert f"Noise in apertures: not measured, {tmp_path}" in said and "put it back" in said


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(45, "45 s"), (0.25, "0.25 s"), (60, "1 min"), (3600, "1 h"), (3725, "1 h 2 min 5 s"), (86400, "24 h")],
)
def test_durations(seconds, expected):
    assert report._duration(seconds) == expected


def test_long_names_are_cut_in_the_middle():
    name = "a_very_long_name_of_a_registered_frame_0017_c_d_r.xisf"
    short = clipped(name, report.NAME)
    assert len(short) == report.NAME
    assert short.startswith("a_very_long") and short.endswith("0017_c_d_r.xisf")


def test_facts_without_any_header(tmp_path):
    from astropy.io import fits

    random = np.random.default_rng(1)
    for i in range(4):
        image = random.normal(0.1, 0.002, (32, 32)).astype(np.float32)
        fits.writeto(tmp_path / f"{i}.fits", image, fits.Header({"ROWORDER": "TOP-DOWN"}))
    result = sl.integrate(tmp_path, RECIPE.replace(rejection="none"), progress=False)
    facts = collect(result)
    assert (facts.target, facts.camera, facts.filter, facts.start) == ("", "", "", None)
    text = result.report()
    assert text.startswith("Integration of an unnamed target\n")
    assert "4 of 4, exposure unknown" in text
    assert result.save(tmp_path / "out")[0].name == "nodate_noobject_nocamera_0000.xisf"


# clean frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["sigma", "winsorized_sigma", "linear_fit", "gesd", "chauvenet"])
@pytest.mark.parametrize("frames", [8, 25])
def test_expected_rejection_is_what_clean_frames_lose(rule, frames):
    recipe = sl.Recipe(rejection=rule, sigma_low=2.5, sigma_high=2.2, linear_fit_low=3, linear_fit_high=3)
    stack = np.random.default_rng(77).normal(0.3, 0.001, (frames, 200, 200)).astype(np.float32)
    lost = 1 - sl.reject(stack, recipe).mean()
    assert sum(expected_rejection(recipe, frames)) == pytest.approx(lost, rel=0.1, abs=3e-4)


def test_expected_rejection_of_known_rules():
    assert expected_rejection(sl.Recipe(rejection="none"), 10) == (0, 0)
    assert expected_rejection(sl.Recipe(rejection="min_max", min_max_low=1, min_max_high=2), 10) == (0.1, 0.2)
    low, high = expected_rejection(sl.Recipe(rejection="sigma", clip_low=False, sigma_high=2.5), 20)
    assert low == 0 and high > 0.002


def test_expected_rejection_with_many_frames_is_the_gaussian_tail():
    recipe = sl.Recipe(rejection="ccd_noise", sigma_low=2.5, sigma_high=2.0, ccd_read_noise=10)
    # Read noise only: the scale is known, so the number of frames does not matter.
    low, high = expected_rejection(recipe.replace(ccd_gain=1e4), 400, 0.0, 1e-3, full_scale=1.0)
    tails = [0.5 * math.erfc(limit / math.sqrt(2)) for limit in (2.5, 2.0)]
    assert [low, high] == pytest.approx(tails, rel=0.05)


def test_numbers_are_the_same_every_time():
    recipe = sl.Recipe(rejection="auto")
    assert expected_rejection(recipe, 20) == expected_rejection(recipe.replace(weights="none"), 20)
    assert expected_rejection(recipe, 20) == expected_rejection(sl.Recipe(rejection="winsorized_sigma"), 20)


def test_the_price_in_noise():
    assert expected_noise_factor(sl.Recipe(rejection="none"), 20) == pytest.approx(1, abs=1e-6)
    tight = expected_noise_factor(sl.Recipe(rejection="sigma", sigma_low=2, sigma_high=2), 20)
    loose = expected_noise_factor(sl.Recipe(rejection="sigma", sigma_low=3, sigma_high=3), 20)
    assert 1 < loose < tight < 1.5
    # The median of many frames increases the noise by sqrt(pi / 2).
    median = expected_noise_factor(sl.Recipe(rejection="none", combination="median"), 101)
    assert median == pytest.approx(math.sqrt(math.pi / 2), rel=0.02)
    assert math.isnan(expected_noise_factor(sl.Recipe(combination="maximum"), 20))
