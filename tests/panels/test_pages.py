"""Viewers of many frames: what the browser is sent, when files are read, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

import stacklib as sl
from stacklib.figures.screen import levels_of
from stacklib.panels.viewer import PagesViewer, pages


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    random = np.random.default_rng(8)
    return [random.normal(1000 + 500 * k, 20, (700, 900)).astype(np.float32) for k in range(3)]


@pytest.fixture
def viewer(images, tmp_path) -> PagesViewer:
    for k, image in enumerate(images):
        fits.writeto(tmp_path / f"light_{k}.fits", image)
    frames = [sl.Frame(tmp_path / f"light_{k}.fits", quiet=True) for k in range(3)]
    return PagesViewer(frames, ["one", "two", "three"], reference=1, unit=("ADU", 1.0))


def served(viewer: PagesViewer, **question) -> list[tuple[dict, list]]:
    """What the kernel answers to a question of the browser, at once."""
    answers = []
    viewer.widget.send = lambda content, buffers=(): answers.append((content, list(buffers)))
    viewer.widget.serve(question)
    return answers


def test_nothing_is_read_before_it_is_seen(viewer):
    meta = viewer.widget.meta
    assert meta["titles"] == ["one", "two", "three"] and meta["reference"] == 1
    assert viewer.widget.title == "one" and "900 x 700" in viewer.widget.alt
    assert all(page.held == 0 for page in viewer.widget.pages)


def test_tiles_come_with_their_page_and_its_own_levels(viewer, images):
    for page, image in enumerate(images):
        ((tile, (values,)),) = served(viewer, ask="tile", page=page, key="0/1/2")
        assert (tile["kind"], tile["page"], tile["key"], tile["width"]) == ("tile", page, "0/1/2", 256)
        np.testing.assert_array_equal(
            np.frombuffer(values, "<f4").reshape(tile["height"], 256), image[512:700, 256:512]
        )
        np.testing.assert_allclose(tile["statistics"], np.transpose(levels_of(image[np.newaxis])), rtol=1e-6)
    (((answer), _),) = served(viewer, ask="pixel", page=2, x=5, y=7)
    assert (answer["page"], answer["values"]) == (2, [images[2][7, 5]])


def test_questions_are_answered_in_a_thread(viewer, images):
    answers = []
    viewer.widget.send = lambda content, buffers=(): answers.append(content)
    viewer.widget._handle_custom_msg({"ask": "pixel", "page": 1, "x": 1, "y": 2}, [])
    viewer.widget._reader.shutdown(wait=True)
    assert answers[0]["values"] == [images[1][2, 1]]


def test_a_lost_file_is_a_problem_of_its_page(viewer, tmp_path):
    assert served(viewer, ask="tile", page=9, key="0/0/0") == []
    (tmp_path / "light_1.fits").unlink()
    ((problem, _),) = served(viewer, ask="tile", page=1, key="2/0/0")
    assert (problem["kind"], problem["page"]) == ("problem", 1) and "light_1.fits" in problem["text"]
    ((tile, _),) = served(viewer, ask="tile", page=2, key="2/0/0")
    assert tile["kind"] == "tile"


def test_memory_is_bounded_and_pages_come_back(viewer, images, monkeypatch):
    monkeypatch.setattr(pages, "KEPT", 2 * images[0].nbytes)
    every = [f"0/{column}/{row}" for column in range(4) for row in range(3)]
    first = served(viewer, ask="tile", page=0, key="0/0/0")
    for page in (0, 1, 2):
        for key in every:
            served(viewer, ask="tile", page=page, key=key)
    held = [page.held for page in viewer.widget.pages]
    assert held[0] == 0 < held[2] and sum(held) <= 2 * images[0].nbytes
    again = served(viewer, ask="tile", page=0, key="0/0/0")
    assert again[0][0] == first[0][0] and bytes(again[0][1][0]) == bytes(first[0][1][0])
