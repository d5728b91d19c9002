"""Geometry of frames: homographies, Siril's sequences, and what is found by stars."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from astropy.io import fits

from stacklib.drizzle.geometry import Geometry, check_direction, from_xdrz
from stacklib.drizzle.registration import siril
from stacklib.drizzle.registration.matching import find_geometries, find_geometry
from stacklib.errors import FrameError
from stacklib.formats.xdrz import DrizzleData
from stacklib.measurement.stars import StarPlaces, star_places
from stacklib.simulate.registration import mapped

WIDTH, HEIGHT = 500, 400


def similarity(degrees, factor, x, y, mirrored=False):
    a, b = factor * np.cos(np.radians(degrees)), factor * np.sin(np.radians(degrees))
    sign = -1 if mirrored else 1
    return np.array([[a, -b * sign, x], [b, a * sign, y], [0, 0, 1.0]])


def field(count=150, seed=1, margin=40):
    rng = np.random.default_rng(seed)
    low, high = [-margin] * 2, [WIDTH + margin, HEIGHT + margin]
    return rng.uniform(low, high, (count, 2))


def seen(stars, matrix, seed, error=0.05, lost=0.2, false=10):
    """Return the places of the stars of a frame: some are not found, some are no stars."""
    rng = np.random.default_rng(seed)
    x, y = mapped(matrix, *stars.T)
    points = np.c_[x, y] + rng.normal(0, error, stars.shape)
    kept = (rng.random(len(stars)) > lost) & (x > 5) & (x < WIDTH - 5) & (y > 5) & (y < HEIGHT - 5)
    points = np.r_[points[kept], rng.uniform(5, 395, (false, 2))]
    return StarPlaces(*points.T, np.full(len(points), error), 2.0)


def farthest(one, other, margin=0):
    """Return the largest distance of the places of one and another geometry in the reference, in pixels."""
    axes = (np.linspace(margin, size - margin, 9) for size in (WIDTH, HEIGHT))
    x, y = (axis.ravel() for axis in np.meshgrid(*axes))
    return np.hypot(*np.subtract(mapped(one, x, y), mapped(other, x, y))).max()


# homographies -----------------------------------------------------------------------------------------


def test_a_homography_and_what_it_says():
    geometry = Geometry(matrix=similarity(2.0, 1.01, 3.0, -4.0), width=WIDTH, height=HEIGHT)
    assert geometry.rotation == pytest.approx(2.0) and geometry.magnification == pytest.approx(1.01)
    x, y = mapped(geometry.inverse, *mapped(geometry.matrix, np.array([7.0]), np.array([9.0])))
    assert np.allclose((x, y), [[7.0], [9.0]])
    assert Geometry(matrix=similarity(0, 1, 3, -4), width=9, height=9).shift == (3.0, -4.0)
    bent = np.array([[1, 0, 5], [0, 1, 0], [1e-3, 0, 1.0]])
    x, y = mapped(bent, np.array([100.0, -2000.0]), np.zeros(2))
    assert x[0] == pytest.approx(105 / 1.1) and np.isinf(x[1])


def test_drizzle_data_count_from_their_origin():
    matrix = similarity(1.0, 1.0, 2.0, 3.0)
    data = DrizzleData(source="a.fits", width=WIDTH, height=HEIGHT, matrix=matrix, origin=(0.0, 0.0))
    x, y = mapped(from_xdrz(data).matrix, np.array([10.5]), np.array([20.5]))
    u, v = mapped(matrix, np.array([10.0]), np.array([20.0]))
    assert np.allclose((x - 0.5, y - 0.5), (u, v))


def test_a_matrix_that_maps_the_wrong_way_is_told():
    stars, matrix = field(), similarity(3.0, 1.0, 20.0, -12.0)
    here = seen(stars, np.eye(3), 1)
    there = seen(stars, matrix, 2)
    reference, frame = (np.c_[found.x, found.y] for found in (here, there))

    def given(matrix):
        return Geometry(matrix=matrix, width=WIDTH, height=HEIGHT, origin="frame_1.xdrz")

    check_direction(given(matrix), reference, frame, "frame_1.fits")
    with pytest.raises(FrameError, match=r"frame_1\.fits: its matrix \(frame_1\.xdrz\) maps the wrong way"):
        check_direction(given(np.linalg.inv(matrix)), reference, frame, "frame_1.fits")
    with pytest.raises(FrameError, match=r"stars do not lie where .*: \d+ % of the bright stars meet"):
        check_direction(given(similarity(40.0, 1.0, 0, 0)), reference, frame, "frame_1.fits")
    # Few stars tell nothing.
    check_direction(given(similarity(40.0, 1.0, 0, 0)), reference[:5], frame, "frame_1.fits")


# stars ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 0.5, 33, 180, -90])
def test_a_geometry_is_found_whatever_the_rotation(degrees):
    stars, middle = field(), similarity(0, 1, WIDTH / 2, HEIGHT / 2)
    matrix = middle @ similarity(degrees, 1.003, 7.3, -11.8) @ np.linalg.inv(middle)
    found = find_geometry(seen(stars, np.eye(3), 1), seen(stars, matrix, 2), (HEIGHT, WIDTH), "frame")
    assert farthest(found.matrix, matrix) < 0.06 and found.stars > 30
    assert found.rms == pytest.approx(0.05 * np.sqrt(2), rel=0.25)
    assert found.origin == f"similarity by {found.stars} stars"


def test_a_homography_is_found_where_there_is_one():
    stars = field(400)
    matrix = np.array([[1.0, 0.01, 4.0], [-0.01, 1.0, 6.0], [1e-5, -5e-6, 1.0]])
    here, there = seen(stars, np.eye(3), 1), seen(stars, matrix, 2)
    found = find_geometry(here, there, (HEIGHT, WIDTH), "frame")
    assert found.origin.startswith("homography by") and farthest(found.matrix, matrix) < 0.1
    assert find_geometry(here, there, (HEIGHT, WIDTH), "frame", "similarity").rms > 2 * found.rms


def test_frames_are_matched_with_a_catalog_of_all():
    rng = np.random.default_rng(4)
    stars = field(25, margin=0)
    matrices = [similarity(*rng.normal(0, 0.3, 1), 1.0, *rng.uniform(-9, 9, 2)) for _ in range(12)]
    # Faint stars: few of them in a frame, each with an error of a fifth of a pixel.
    frames = [seen(stars, matrix, k, error=0.2, lost=0.3, false=3) for k, matrix in enumerate(matrices)]
    reference, found = find_geometries(frames, (HEIGHT, WIDTH), [f"frame {k}" for k in range(12)])
    good = [k for k, geometry in enumerate(found) if isinstance(geometry, Geometry)]
    assert len(good) >= 11
    back = np.linalg.inv(matrices[reference])
    off = [farthest(found[k].matrix, matrices[k] @ back) for k in good]
    alone = [
        farthest(find_geometry(frames[reference], frames[k], (HEIGHT, WIDTH), "").matrix, matrices[k] @ back)
        for k in good
        if k != reference
    ]
    assert np.median(off) < min(0.35, np.median(alone))


def test_what_cannot_be_found_is_refused():
    stars, shape = field(), (HEIGHT, WIDTH)
    here = seen(stars, np.eye(3), 1)
    few = StarPlaces(*(values[:9] for values in here[:3]), 2.0)
    with pytest.raises(FrameError, match=r"frame: its geometry .*: only 9 stars were found; leave the frame"):
        find_geometry(here, few, shape, "frame")
    with pytest.raises(FrameError, match=r"only \d stars? of \d+ match those of the reference"):
        find_geometry(here, seen(field(seed=9), np.eye(3), 2), shape, "frame")
    with pytest.raises(FrameError, match="is a mirror image of the reference"):
        find_geometry(
            here, seen(stars, similarity(0, 1, WIDTH, 0, True) @ np.diag([-1, -1, 1]), 2), shape, "frame"
        )
    with pytest.raises(FrameError, match=r"lie 0\.\d\d px off \(rms\), at most 0\.5 px"):
        find_geometry(seen(stars, np.eye(3), 1, 0.6), seen(stars, np.eye(3), 2, 0.6), shape, "frame")


def test_a_geometry_does_not_depend_on_chance():
    stars = field()
    here, there = seen(stars, np.eye(3), 1), seen(stars, similarity(1, 1, 5, 5), 2)
    found = [find_geometry(here, there, (HEIGHT, WIDTH), "frame").matrix for _ in range(2)]
    assert np.array_equal(*found)


def picture(stars, matrix, seed, fwhm=2.4):
    """Draw stars with the noise of the sky; the first row is stored first."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0.02, 0.001, (HEIGHT, WIDTH))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    flux = 10 ** np.random.default_rng(8).uniform(-1, 1, len(stars))
    for u, v, light in zip(*mapped(matrix, *stars.T), flux, strict=True):
        if -9 < u < WIDTH + 9 and -9 < v < HEIGHT + 9:
            part = np.s_[max(int(v) - 9, 0) : int(v) + 10, max(int(u) - 9, 0) : int(u) + 10]
            # Centers of pixels are at whole numbers + 0.5.
            away = (x[part] + 0.5 - u) ** 2 + (y[part] + 0.5 - v) ** 2
            image[part] += 0.1 * light * np.exp(-away / 2 / (fwhm / 2.3548) ** 2)
    return image.astype(np.float32)


def test_places_of_stars_in_a_picture():
    stars, matrix = field(), similarity(1.5, 1.0, 4.3, -6.7)
    here, there = (
        star_places(picture(stars, given, k)).moved(0.5, 0.5) for k, given in enumerate((np.eye(3), matrix))
    )
    found = find_geometry(here, there, (HEIGHT, WIDTH), "frame")
    assert farthest(found.matrix, matrix) < 0.03 and found.rms < 0.1
    assert here.fwhm == pytest.approx(2.4, rel=0.1)


# Siril ------------------------------------------------------------------------------------------------

#: Registered by Siril 1.4.5 from simulated frames of 500 x 400 pixels with these matrices, to the frame,
#: in pixels as they are stored, whose centers are at whole numbers.
TRUE = [
    [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    [0.998216174, -0.016440392, -3.730860147, 0.016440392, 0.998216174, -0.352298322],
    [0.999732233, -0.005402608, 2.779449757, 0.005402608, 0.999732233, 4.316890404],
    [1.000093193, 0.008697005, -5.558773994, -0.008697005, 1.000093193, -0.303801908],
    [0.997211818, 0.02966125, -4.915362206, -0.02966125, 0.997211818, 0.318108606],
    [-1.000952543, -0.002694422, 494.064316618, 0.002694422, -1.000952543, 393.076238737],
]
FOUND = [
    "1 0 0 0 1 0 0 0 1",
    "1.0015 -0.0165387 10.3323 0.016472 1.00148 -0.891368 1.09731e-07 -2.70494e-07 1",
    "1.00034 -0.00531416 -0.67435 0.00540315 1.00034 4.20707 -3.77317e-09 3.57151e-07 1",
    "0.999785 0.00852004 2.11773 -0.00872765 0.999712 -0.273117 1.21089e-07 -4.85528e-07 1",
    "1.00198 0.0298283 -6.96686 -0.029826 1.00197 -0.586772 1.26871e-07 -5.32509e-09 1",
    "-0.999066 -0.00267307 493.609 0.00268682 -0.998968 403.569 -1.88884e-07 1.05547e-07 1",
]
SEQUENCE = "\n".join(
    [
        "#Siril sequence file. Contains list of images, selection, registration data and statistics",
        "#S 'sequence_name' start_index nb_images nb_selected fixed_len reference_image version ...",
        "S 'fr_' 1 6 5 5 0 6 0 0 0",
        "L 1",
        *(f"I {number} {int(number != 4)}" for number in range(1, 7)),
        *(f"R0 3.08267 3.08267 0.987148 0 0.020091 62 H {text}" for text in FOUND),
        "M0-0 200000 200000 0.0205321 0.0200439 0.00743924 -999999 -999999 -999999 -999999 -999999 0.0137 1",
        "",
    ]
)
HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])


def sequence(tmp_path, text=SEQUENCE):
    path = tmp_path / "fr_.seq"
    path.write_text(text)
    return siril.read_sequence(path)


def true_matrix(number):
    return HALF @ np.array([*TRUE[number - 1], 0, 0, 1]).reshape(3, 3) @ np.linalg.inv(HALF)


def test_a_sequence_of_siril(tmp_path):
    found = sequence(tmp_path)
    assert found.frame_name(3) == "fr_00003" and found.reference == 1 and not found.notes
    assert found.selected == {1, 2, 3, 5, 6} and set(found.matrices) == {1, 2, 3, 4, 5, 6}
    for number in found.matrices:
        assert farthest(found.corner_matrix(number, HEIGHT, HEIGHT), true_matrix(number), 30) < 0.05


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("S 'fr_'", "X 'fr_'", "has no line S with the name of a sequence"),
        (" 0 6 0 0 0", " 0 3", "of version 3, which has no homographies; register the frames with Siril 1.2"),
        ("I 4 0\n", "", "number of frames is 5, expected 6"),
        ("R0", "#", "holds no registration"),
        (
            "H 1 0 0 0 1 0 0 0 1",
            "H 1 0 0 0 1 0 0 0",
            "homography of frame 1 is '1 0 0 0 1 0 0 0', expected nine",
        ),
        ("H 1 0 0 0 1 0 0 0 1", "H 1 0 0 0 1 0 0 0 nan", "of frame 1 is .*, expected nine numbers"),
        ("H 1 0 0 0 1 0 0 0 1", "H 1 0 0 0 0 0 0 0 1", "homography of frame 1 has no inverse"),
    ],
)
def test_sequences_that_are_refused(tmp_path, old, new, words):
    with pytest.raises(FrameError, match=words) as caught:
        sequence(tmp_path, SEQUENCE.replace(old, new))
    assert str(tmp_path / "fr_.seq") in str(caught.value)


def test_frames_of_a_sequence_that_are_not_registered(tmp_path):
    found = sequence(tmp_path, SEQUENCE.replace("H 1 0 0 0 1 0 0 0 1", "H 0 0 0 0 0 0 0 0 0"))
    assert 1 not in found.matrices and len(found.matrices) == 5
    # Color is registered by the green layer; mosaics have a star for a layer.
    layers = SEQUENCE.replace("R0", "R1") + "R0 3 3 1 0 0 0\n" * 6
    assert len(sequence(tmp_path, layers).matrices) == 6
    assert len(sequence(tmp_path, SEQUENCE.replace("R0", "R*")).matrices) == 6
    assert "distortion" in sequence(tmp_path, SEQUENCE + "D1 2 x.wcs\n").notes[0]


def _siril_version():
    if not shutil.which("siril-cli"):
        return ()
    shown = subprocess.run(["siril-cli", "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(part) for part in shown.split()[-1].split("-")[0].split(".")[:2] if part.isdigit())


@pytest.mark.skipif(_siril_version() < (1, 2), reason="needs siril-cli 1.2 or later")
def test_siril_registers_the_same(tmp_path):
    stars = field()
    for number in range(1, 7):
        image = picture(stars, true_matrix(number), number)
        fits.writeto(tmp_path / f"fr_{number:05d}.fit", image)
    script = f"requires 1.2.0\nset32bits\nsetext fit\nsetcpu 1\ncd {tmp_path}\nregister fr\nclose\n"
    (tmp_path / "run.ssf").write_text(script)
    command = ["siril-cli", "-d", str(tmp_path), "-s", str(tmp_path / "run.ssf")]
    environment = os.environ | {"HOME": str(tmp_path)}
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
    found = siril.read_sequence(tmp_path / "fr_.seq")
    back = np.linalg.inv(true_matrix(found.reference))
    for number in found.matrices:
        assert farthest(found.corner_matrix(number, HEIGHT, HEIGHT), true_matrix(number) @ back, 30) < 0.05
