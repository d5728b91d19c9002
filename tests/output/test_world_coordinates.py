"""World coordinates of a result: turned over with the rows, or left out with a word."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklib.errors import StacklibWarning
from stacklib.formats import fits, xisf
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.output.provenance import collect, keywords
from stacklib.output.world_coordinates import turned, world_coordinates

WIDTH, HEIGHT = 40, 32
PLAIN = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 83.6, "CRVAL2": 22.0,
    "CRPIX1": 20.5, "CRPIX2": 10.25,
}  # fmt: skip
SCALE = {"CDELT1": -2e-4, "CDELT2": 2e-4}
CD = {"CD1_1": -2e-4, "CD1_2": 3e-5, "CD2_1": 2.9e-5, "CD2_2": 2e-4}
SIP = {
    "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4,
    "A_1_1": -2e-4, "A_0_2": 3e-4, "B_2_0": -1e-4, "B_1_1": 4e-4, "B_0_2": 2e-4, "A_DMAX": 1.0,
}  # fmt: skip
MATRICES = [
    SCALE,
    CD,
    CD | SCALE | {"CROTA2": 8.0},
    SCALE | {"CROTA2": 30.0},
    SCALE | {"PC1_1": 0.9, "PC1_2": -0.4, "PC2_1": 0.4, "PC2_2": 0.9},
    SCALE | {"PC1_2": -0.4, "PC2_1": 0.4},
    CD | SIP,
    CD | {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV2_1": 1.0, "PV1_4": 1e-3},
]


def directions(cards, x, y):
    """Return the sky positions of pixels, counted from 1."""
    system = WCS(astropy_fits.Header(cards), naxis=2)
    return np.stack(system.all_pix2world(x, y, 1))


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
@pytest.mark.parametrize("matrix", MATRICES)
@settings(max_examples=20, deadline=None)
@given(x=st.floats(1, WIDTH), y=st.floats(1, HEIGHT))
def test_turned_coordinates_give_the_same_sky(matrix, x, y):
    cards = PLAIN | matrix
    over = turned(cards, HEIGHT)
    np.testing.assert_allclose(directions(over, x, HEIGHT + 1 - y), directions(cards, x, y), rtol=1e-12)
    back = turned(over, HEIGHT)
    np.testing.assert_allclose(directions(back, x, y), directions(cards, x, y), rtol=1e-12)
    assert over != cards


def test_alternate_coordinates_are_turned_as_well():
    cards = PLAIN | CD | {f"{name}A": value for name, value in (PLAIN | SCALE).items()}
    over = turned(cards, HEIGHT)
    assert (over["CRPIX2A"], over["CDELT2A"]) == (HEIGHT + 1 - 10.25, -2e-4)
    assert (over["CD1_2"], over["CD2_1"]) == (-3e-5, 2.9e-5)


# Results ---------------------------------------------------------------------------------------------


def saved_frames(
    folder, *headers, ending=".fits", row_order="top-down", properties=None, shape=(HEIGHT, WIDTH)
):
    """Write one frame for each header."""
    for number, header in enumerate(headers):
        cards = [(name, value, "") for name, value in header.items()]
        path, image = folder / f"f{number}{ending}", np.zeros(shape, np.float32)
        if ending == ".xisf":
            xisf.write_image(
                path, image, image_id="a", keywords=cards, properties=(properties or {}).get(number)
            )
        else:
            fits.write_image(path, image, cards, row_order=row_order)
    return open_frames(folder)


def result_of(frames: FrameSet, reference=0, region=(0, 0, WIDTH, HEIGHT)):
    """Return as much of a result as is needed."""
    used = np.arange(len(frames))
    preparation = SimpleNamespace(frames=frames, reference=reference, used=used, count=len(used))
    return SimpleNamespace(preparation=preparation, region=region)


def in_file(result, kind):
    return {name: value for name, value, _ in keywords(result, collect(result), [], kind)}


def same_sky(cards, expected, rows=slice(None)):
    """Whether `cards` put the pixels of the rows of an image where `expected` put them."""
    y, x = np.mgrid[1 : HEIGHT + 1, 1 : WIDTH + 1].astype(float)
    there = directions(expected, x.ravel(), y.ravel()).reshape(2, HEIGHT, WIDTH)
    here = directions(cards, x.ravel(), y.ravel()).reshape(2, HEIGHT, WIDTH)
    np.testing.assert_allclose(here, there[:, rows], rtol=1e-12)


@pytest.mark.parametrize("matrix", MATRICES[:6])
@pytest.mark.parametrize("row_order", ["top-down", "bottom-up", ""])
def test_fits_frames(tmp_path, matrix, row_order):
    cards = PLAIN | matrix
    result = result_of(saved_frames(tmp_path, *[cards] * 3, row_order=row_order))
    bottom_up = row_order == "bottom-up"
    # A FITS file has the rows of the frames, or turned over. An XISF file counts them from the bottom.
    same_sky(in_file(result, "fits"), cards, slice(None, None, -1 if bottom_up else 1))
    same_sky(in_file(result, "xisf"), cards, slice(None, None, 1 if bottom_up else -1))
    if not bottom_up:
        assert {name: in_file(result, "fits")[name] for name in cards} == cards
    assert collect(result).world.notes == []


def test_the_first_frame_need_not_tell_the_order_of_its_rows(tmp_path):
    cards = PLAIN | CD
    for number, row_order in enumerate(["", "bottom-up", "bottom-up"]):
        keywords = [(name, value, "") for name, value in cards.items()]
        fits.write_image(
            tmp_path / f"f{number}.fits", np.zeros((HEIGHT, WIDTH), np.float32), keywords, row_order=row_order
        )
    with pytest.warns(StacklibWarning, match="no ROWORDER"):
        frames = open_frames(tmp_path)
    for reference in (0, 1):
        same_sky(in_file(result_of(frames, reference), "fits"), cards, slice(None, None, -1))


def test_xisf_frames(tmp_path):
    cards = PLAIN | CD
    result = result_of(saved_frames(tmp_path, *[cards] * 3, ending=".xisf"))
    assert {name: in_file(result, "xisf")[name] for name in cards} == cards
    same_sky(in_file(result, "fits"), cards, slice(None, None, -1))


@pytest.mark.parametrize("ending", [".fits", ".xisf"])
def test_a_part_of_the_image_keeps_its_place(tmp_path, ending):
    cards = PLAIN | CD
    result = result_of(saved_frames(tmp_path, cards, cards, ending=ending), region=(4, 6, 20, 10))
    found = in_file(result, "fits")
    # Row 1 of the part is row 7 from the top.
    row = 7 if ending == ".fits" else HEIGHT - 6
    np.testing.assert_allclose(directions(found, 1, 1), directions(cards, 5, row), rtol=1e-12)
    found = in_file(result, "xisf")
    np.testing.assert_allclose(directions(found, 1, 10), directions(cards, 5, row), rtol=1e-12)


def shifted(pixels):
    return PLAIN | CD | {"CRPIX1": 20.5 + pixels}


@pytest.mark.parametrize("ending", [".fits", ".xisf"])
@pytest.mark.parametrize(
    ("pixels", "agree"), [(0.0, True), (0.5, True), (1.9, True), (2.1, False), (300, False)]
)
def test_frames_that_disagree_are_named(tmp_path, ending, pixels, agree):
    frames = saved_frames(tmp_path, shifted(0), shifted(0), shifted(pixels), {}, ending=ending)
    words = f"those of the reference frame, but the frames disagree by up to {pixels:.0f} pixels"
    for reference, expected in ((0, 20.5), (2, 20.5 + pixels)):
        result = result_of(frames, reference)
        assert {in_file(result, kind)["CRPIX1"] for kind in ("fits", "xisf")} == {expected}
        assert [words in note for note in collect(result).notes] == ([] if agree else [True])
    # Nobody knows to which of the others the frames were registered.
    result = result_of(frames, 3)
    assert [("CTYPE1" in in_file(result, kind)) for kind in ("fits", "xisf")] == [agree] * 2
    (note,) = collect(result).notes
    assert ("the reference frame has none, and of the others the frames disagree" in note) == (not agree)


def test_plate_solutions_of_the_same_field_agree(tmp_path):
    # The same sky by another reference point and another form of the matrix.
    one = PLAIN | {"CD1_1": -2e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 2e-4}
    other = PLAIN | SCALE | {"RADESYS": "ICRS", "WCSNAME": "mine"}
    longitude, latitude = directions(one, 30.0, 20.0)
    moved = one | {"CRPIX1": 30.0, "CRPIX2": 20.0, "CRVAL1": float(longitude), "CRVAL2": float(latitude)}
    result = result_of(saved_frames(tmp_path, one, other, moved))
    assert in_file(result, "fits")["CRVAL1"] == 83.6
    assert collect(result).world.notes == []


def test_coordinates_of_another_frame_than_the_reference(tmp_path):
    result = result_of(saved_frames(tmp_path, {}, PLAIN | CD, PLAIN | CD), reference=0)
    assert in_file(result, "fits")["CRVAL1"] == 83.6
    assert collect(result).notes == [
        "World coordinates (WCS) are those of f1.fits: the reference frame has none."
    ]


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"CTYPE1": "RA---TAN", "CRVAL1": 83.6}, "those of f0.fits are incomplete"),
        (PLAIN | CD | {"CRVAL2": "22 00 00"}, "those of f0.fits are incomplete"),
        (PLAIN | CD | {"CD1_2": "none"}, "those of f0.fits are incomplete"),
        (PLAIN | CD | {"CPDIS1": "LOOKUP"}, "the distortion tables of f0.fits cannot be copied"),
    ],
)
def test_what_cannot_be_kept_is_named(tmp_path, cards, words):
    result = result_of(saved_frames(tmp_path, cards, cards))
    facts = collect(result)
    assert facts.notes == [f"World coordinates (WCS) are left out: {words}."]
    assert not any(name.startswith(("CTYPE", "CRVAL", "CPDIS")) for name in in_file(result, "xisf"))


def test_frames_that_cannot_be_compared(tmp_path):
    result = result_of(saved_frames(tmp_path, PLAIN | CD, PLAIN | CD | {"CTYPE1": "NONSENSE"}))
    assert "but f0.fits and f1.fits cannot be compared" in collect(result).notes[0]


def test_no_coordinates_no_words(tmp_path):
    result = result_of(saved_frames(tmp_path, {"EQUINOX": 2000.0}, {"EQUINOX": 2000.0}))
    assert world_coordinates(result).cards == {}
    assert collect(result).notes == []
    assert in_file(result, "xisf")["EQUINOX"] == 2000


def test_coordinates_of_an_axis_of_colors_do_not_fit(tmp_path):
    frames = saved_frames(tmp_path, PLAIN | CD, PLAIN | CD, shape=(HEIGHT, WIDTH, 3))
    assert frames.shape == (3, HEIGHT, WIDTH)
    assert "the first axis of f0.fits is that of the colors" in collect(result_of(frames)).notes[0]


SOLUTION = {
    "PCL:AstrometricSolution:ProjectionSystem": "Gnomonic",
    "PCL:AstrometricSolution:ReferenceCelestialCoordinates": np.array([83.6, 22.0]),
    "PCL:AstrometricSolution:LinearTransformationMatrix": np.array([[-2e-4, 0.0], [0.0, -2e-4]]),
    "PCL:AstrometricSolution:CreationTime": ("TimePoint", "2024-01-05T22:10:00Z"),
}


def test_the_solution_of_pixinsight_is_kept(tmp_path):
    frames = saved_frames(tmp_path, {}, {}, ending=".xisf", properties={0: SOLUTION, 1: SOLUTION})
    found = world_coordinates(result_of(frames))
    assert found.notes == [] and found.properties.keys() == SOLUTION.keys()
    path = xisf.write_image(
        tmp_path / "out.xisf", np.zeros((2, 2), np.float32), image_id="a", properties=found.properties
    )
    back = xisf.open_image(path).properties
    np.testing.assert_array_equal(
        back["PCL:AstrometricSolution:LinearTransformationMatrix"],
        SOLUTION["PCL:AstrometricSolution:LinearTransformationMatrix"],
    )
    part = world_coordinates(result_of(frames, region=(0, 0, 10, 10)))
    assert part.properties == {} and "only a part was integrated" in part.notes[0]


def test_solutions_of_pixinsight_that_disagree_are_named(tmp_path):
    other = SOLUTION | {"PCL:AstrometricSolution:ReferenceCelestialCoordinates": np.array([83.7, 22.0])}
    frames = saved_frames(tmp_path, {}, {}, ending=".xisf", properties={0: SOLUTION, 1: other})
    found = world_coordinates(result_of(frames))
    assert found.properties.keys() == SOLUTION.keys()
    assert "those of the reference frame, but f0.xisf and f1.xisf disagree" in found.notes[0]
