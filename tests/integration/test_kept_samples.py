"""Samples that are kept: a run with frames more or less has the bits of a full run, and looks at little."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stacklib as sl
from stacklib.integration import run
from stacklib.integration.kept import growing, store
from stacklib.kernel import grown, passes
from stacklib.rejection.registry import COMPILED
from stacklib.simulate import simulate_frames
from stacklib.spatial.means import MEANS

#: The rules that need no more than the ends of the sorted samples.
RULES = [name for name, rule in COMPILED.items() if rule.by_ends is not None]


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    """Keep samples in a folder of the test, as several tests run at once."""
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "samples"


def night(folder, channels=1, count=44, **how):
    options = {"cloudy": 0, "trails": 3, "dither": 2} | how
    frames = simulate_frames(count, 70, 93, channels, "field", 11, **options)
    return [str(path) for path in frames.save(folder, "fits", "f32")]


@pytest.fixture(scope="module")
def mono(tmp_path_factory):
    return night(tmp_path_factory.mktemp("mono"))


@pytest.fixture(scope="module")
def color(tmp_path_factory):
    return night(tmp_path_factory.mktemp("color"), 3)


def integrate(files, keep=True, **changes):
    # The reference must not change by itself.
    recipe = sl.Recipe(
        rejection="sigma", joint_colour=False, reference="Simulated_Light_0004_c_d_r", allow_unregistered=True
    )
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        result = sl.integrate(files, recipe.replace(**changes), progress=False, keep_samples=keep)
    result.said = [str(note.message) for note in notes if "keep_samples" in str(note.message)]
    return result


def assert_same(one, other):
    for name in ("image", "rejection_low", "rejection_high", "coverage", "uncertainty"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    for counts, others in zip(one.counts, other.counts, strict=True):
        np.testing.assert_array_equal(counts.table, others.table)
    np.testing.assert_array_equal(one.shift, other.shift)


def test_every_rule_that_needs_only_ends_is_there():
    assert {"none", "min_max", "percentile", "sigma", "averaged_sigma", "ccd_noise"} == set(RULES)


@pytest.mark.parametrize("kind", ["mono", "color"])
@pytest.mark.parametrize("rule", RULES)
def test_frames_added_and_left_out_give_the_bits_of_a_full_run(rule, kind, request, monkeypatch):
    files = request.getfixturevalue(kind)
    assert integrate(files[:38], rejection=rule).how == "in full"
    looked_at = []
    monkeypatch.setattr(
        growing,
        "run_tiles",
        lambda raw, *rest: looked_at.append(raw.shape[1]) or passes.run_tiles(raw, *rest),
    )
    some = {
        "6 frames added": files,
        "1 frame left out": files[:20] + files[21:38],
        "3 frames added and 2 frames left out": files[1:9] + files[10:41],
        "the same frames": files[:38],
    }
    for words, chosen in some.items():
        result = integrate(chosen, rejection=rule)
        assert result.how == words and not result.said
        assert result.summary.endswith(f"\nintegrated with keep_samples: {words}")
        assert_same(result, integrate(chosen, keep=False, rejection=rule))
    pixels = 70 * 93 * (3 if kind == "color" else 1)
    if rule not in ("ccd_noise", "percentile"):
        # The border without data of dithered frames, and next to nothing else.
        assert sum(looked_at) < 0.3 * pixels * len(some)


def test_16_bit_frames_whose_samples_are_often_equal(tmp_path, kept):
    frames = simulate_frames(40, 60, 80, 1, "field", 5, cloudy=0, sky=0.001, dither=0, read_noise=1.0)
    files = [str(path) for path in frames.save(tmp_path, "xisf", "u16", compress=True)]
    for rule in RULES:
        changes = {"rejection": rule, "normalization": "additive", "rejection_normalization": "none"}
        integrate(files[:34], **changes)
        result = integrate(files, **changes)
        assert result.how == "6 frames added"
        assert_same(result, integrate(files, keep=False, **changes))
        shutil.rmtree(kept)


@pytest.mark.parametrize("rule", RULES)
def test_a_frame_left_out_leaves_no_rounding_errors_of_huge_samples(mono, tmp_path, rule):
    files = [shutil.copy2(file, tmp_path) for file in mono[:20]]
    content = bytearray(Path(files[7]).read_bytes())
    size = 70 * 93 * 4
    samples = np.frombuffer(content, ">f4", size // 4, offset=len(content) - -(-size // 2880) * 2880)
    # No more than may be lone ones: others would tell of another scale.
    samples[[700, 2000, 4000]] = 1e8, 1e12, 1e20
    Path(files[7]).write_bytes(content)
    how = {"rejection": rule, "normalization": "none", "rejection_normalization": "none", "weights": "none"}
    integrate(files, **how)
    result = integrate(files[:7] + files[8:], **how)
    assert result.how == "1 frame left out"
    assert_same(result, integrate(files[:7] + files[8:], keep=False, **how))


@pytest.mark.parametrize("weights", ["none", "exposure", "noise"])
@pytest.mark.parametrize("normalization", ["none", "additive", "multiplicative", "additive_scaling"])
def test_normalizations_and_weights(mono, weights, normalization):
    changes = {"weights": weights, "normalization": normalization}
    integrate(mono[:38], **changes)
    result = integrate(mono, **changes)
    if weights == "noise" and "full" in result.how:
        assert "weights" in result.how
    else:
        assert result.how == "6 frames added"
    assert_same(result, integrate(mono, keep=False, **changes))


def test_memory_and_threads_do_not_matter(mono):
    integrate(mono[:38])
    whole = integrate(mono, keep=False)
    for memory, threads in (("17MB", 1), ("2GB", 3)):
        recipe = whole.recipe
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = sl.integrate(
                mono, recipe, memory=memory, threads=threads, progress=False, keep_samples=True
            )
        assert result.how == "6 frames added"
        assert_same(result, whole)


@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_selection_of_frames(mono, kept, data):
    shutil.rmtree(kept, ignore_errors=True)
    others = [i for i in range(len(mono)) if i != 3]
    gone = data.draw(st.lists(st.sampled_from(others), max_size=6, unique=True))
    later = data.draw(st.lists(st.sampled_from(others), max_size=6, unique=True))
    rule = data.draw(st.sampled_from(RULES))
    integrate([file for i, file in enumerate(mono) if i not in later], rejection=rule)
    chosen = [file for i, file in enumerate(mono) if i not in gone]
    result = integrate(chosen, rejection=rule)
    assert "in full" not in result.how or "changed" in result.how
    assert_same(result, integrate(chosen, keep=False, rejection=rule))


def integrate_all(files, reference, **changes):
    return integrate(files, reference=Path(reference).name, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rejection": "winsorized_sigma"}, "winsorized_sigma looks at all samples"),
        ({"combination": "median"}, "combination median looks at all samples"),
        ({"output_bits": "64"}, "64 bits"),
        ({"large_scale_high": True}, "neighbors in all frames (large_scale)"),
    ],
)
def test_what_cannot_be_kept_is_said_and_run_in_full(mono, kept, changes, words):
    result = integrate(mono[:30], **changes)
    assert result.how == "in full" and words in result.said[0]
    assert not list(kept.glob("*"))


def test_settings_that_look_at_neighbors_are_named(color):
    result = integrate(color[:12], joint_colour=True)
    assert "neighbors in all frames (joint_colour)" in result.said[0]
    parameters = sl.Recipe.parameters()
    assert all(any(name.startswith(means.setting) for name in parameters) for means in MEANS)


def test_what_changes_every_sample_is_said_and_run_in_full(mono):
    integrate(mono[:38])
    other = integrate_all(mono[:38], mono[9])
    assert "the reference or the normalization changed" in other.how and other.said
    assert_same(other, integrate_all(mono[:38], mono[9], keep=False))
    # From now on these are kept.
    assert integrate_all(mono, mono[9]).how == "6 frames added"
    many = integrate_all(mono[:20], mono[9])
    assert "18 frames of 38 changed" in many.how


def test_a_changed_frame_is_another_one(mono, tmp_path):
    files = [shutil.copy2(file, tmp_path) for file in mono[:38]]
    integrate(files)
    shutil.copy(mono[40], files[7])
    result = integrate(files)
    assert result.how == "1 frame added and 1 frame left out"
    assert_same(result, integrate(files, keep=False))


def test_samples_of_a_file_that_changed_during_the_run_are_not_kept(mono, kept, tmp_path, monkeypatch):
    files = [shutil.copy2(file, tmp_path) for file in mono[:12]]
    find = run._noise_of_frames

    def change(*given):
        shutil.copy(mono[40], files[7])
        return find(*given)

    how = {"normalization": "none", "rejection_normalization": "none", "weights": "none"}
    with monkeypatch.context() as patched:
        # All samples are in memory by then.
        patched.setattr(run, "_noise_of_frames", change)
        integrate(files, **how)
    assert not list(kept.iterdir())
    result = integrate(files, **how)
    assert result.how == "in full"
    assert_same(result, integrate(files, keep=False, **how))


def test_a_full_disk_is_said(mono, kept, monkeypatch):
    monkeypatch.setattr(store, "LEFT_FREE", 1 << 60)
    result = integrate(mono[:30])
    assert "not kept, as that takes 0.0 GB" in result.said[0]
    assert not list(kept.glob("*"))


def test_damaged_samples_are_made_again(mono, kept):
    integrate(mono[:38])
    (folder,) = kept.iterdir()
    (folder / "values_0").write_bytes(b"short")
    assert integrate(mono).how == "in full"
    assert integrate(mono[:40]).how == "4 frames left out"


def test_samples_that_another_run_replaces_meanwhile_are_not_used(mono, kept, tmp_path, monkeypatch):
    integrate(mono[:38])
    (folder,) = kept.iterdir()
    shutil.copytree(folder, tmp_path / "first")
    integrate(mono[20:] + mono[:14])
    shutil.move(folder, tmp_path / "other")
    shutil.copytree(tmp_path / "first", folder)
    mapped = store._mapped

    def swap(*given):
        monkeypatch.setattr(store, "_mapped", mapped)
        shutil.rmtree(folder)
        shutil.move(tmp_path / "other", folder)
        return mapped(*given)

    monkeypatch.setattr(store, "_mapped", swap)
    result = integrate(mono[:38])
    assert result.how == "in full"
    assert_same(result, integrate(mono[:38], keep=False))


def test_old_samples_that_cannot_be_removed_cost_no_result(mono, kept, monkeypatch):
    integrate(mono[:20])
    remove = store.remove_tree
    monkeypatch.setattr(store, "remove_tree", lambda path: path.name[0] == "." and remove(path))
    result = integrate(mono)
    assert "24 frames of 20 changed" in result.how
    assert [path.name.startswith(".") for path in kept.iterdir()] == [False]
    assert integrate(mono[:19]).how == "1 frame left out"


def test_a_cache_that_cannot_be_written_is_said(mono, kept):
    kept.parent.mkdir()
    kept.write_text("in the way")
    result = integrate(mono[:12])
    assert result.how == "in full" and f"not kept, as {kept.parent} cannot be used" in result.said[0]


def test_a_run_that_is_stopped_leaves_the_old_samples(mono, kept, monkeypatch):
    integrate(mono[:38])

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(growing, "keep_sorted", stop)
    with pytest.raises(KeyboardInterrupt):
        integrate_all(mono[:38], mono[9])
    monkeypatch.setattr(growing, "keep_sorted", grown.keep_sorted)
    assert [path.name.startswith(".") for path in kept.iterdir()] == [False]
    assert integrate(mono).how == "6 frames added"


def test_nothing_is_kept_without_a_wish(mono, kept):
    result = integrate(mono[:30], keep=False)
    assert result.how == "" and "keep_samples" not in result.summary
    assert not kept.exists()
