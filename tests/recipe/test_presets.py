"""Presets: what they set, and that anything given beside them wins."""

import numpy as np
import pytest

import stacklib as sl
from stacklib import notebook
from stacklib.commands.batch import batch_from_arguments
from stacklib.commands.run import job_from_arguments
from stacklib.notebook.parameters import cell_parameters
from stacklib.recipe.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_recipe(name):
    recipe = sl.Recipe.from_dict({"preset": name})
    assert {key: getattr(recipe, key) for key in PRESETS[name]} == PRESETS[name]
    assert "preset" not in recipe.to_dict()


def test_classic_is_the_default_without_what_other_programs_do_not_do():
    assert sl.Recipe.from_dict({"preset": "classic"}) == sl.Recipe(joint_colour=False)


def test_a_preset_is_one_line_and_every_field_overrides_it(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("preset: flat\nweights: exposure\n")
    recipe = sl.Recipe.load(file)
    assert (recipe.normalization, recipe.rejection_normalization, recipe.weights) == (
        "multiplicative",
        "equalize_fluxes",
        "exposure",
    )
    file.write_text("preset: flat\nnormalization: additive_scaling\n")
    assert sl.Recipe.load(file).normalization == "additive_scaling"
    assert sl.Recipe(sigma_low=3.0).replace(preset="dark", weights="exposure") == sl.Recipe.from_dict(
        {"preset": "dark", "weights": "exposure", "sigma_low": 3.0}
    )


def test_an_unknown_preset_is_an_error_that_lists_them(tmp_path):
    with pytest.raises(sl.RecipeError, match=r"preset: got 'best', expected one of none, classic"):
        sl.Recipe.from_dict({"preset": "best"})


def make(folder, kind, count=4):
    from astropy.io import fits

    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    for i in range(count):
        data = rng.normal(1000, 20, (32, 40)).astype(np.uint16)
        header = fits.Header({"IMAGETYP": kind, "EXPTIME": 10.0})
        fits.PrimaryHDU(data, header).writeto(folder / f"frame_{i}_c_d_r.fits")
    return folder


def test_notebook_and_command_line_know_presets(tmp_path, capsys):
    folder = make(tmp_path / "T" / "4_Registered", "Light Frame")
    cell = {name: parameter.default for name, parameter in cell_parameters(sl.Job).items()}
    job = notebook.read_parameters(sl.Job, cell | {"preset": "dark", "frames": str(folder)})
    assert (job.recipe.normalization, job.recipe.weights) == ("none", "none")
    job, _ = job_from_arguments(str(folder), [("preset", "flat"), ("weights", "exposure")])
    assert (job.recipe.normalization, job.recipe.weights) == ("multiplicative", "exposure")
    batch = batch_from_arguments(str(tmp_path), [("preset", "bias")])
    assert batch.recipe.normalization == "none"


def test_a_preset_given_overrides_saved_choices(tmp_path):
    folder = make(tmp_path / "T" / "4_Registered", "Light Frame")
    (tmp_path / "T" / "recipe.yaml").write_text("rejection: sigma\nnormalization: additive\nsigma_low: 3.3\n")
    job, line = job_from_arguments(str(folder), [("preset", "flat")])
    assert (job.recipe.normalization, job.recipe.rejection, job.recipe.sigma_low) == (
        "multiplicative",
        "calibrated_sigma",
        3.3,
    )
    assert "Changed here: normalization multiplicative" in line


@pytest.mark.parametrize(("kind", "normalization"), [("Bias Frame", "none"), ("FLAT", "multiplicative")])
def test_best_goes_by_imagetyp(tmp_path, kind, normalization):
    with pytest.warns(sl.StacklibWarning, match="there are the presets bias, dark and flat"):
        frames = sl.open_frames(make(tmp_path / "frames", kind))
    assert sl.Recipe.best(frames).normalization == normalization
    with pytest.warns(sl.StacklibWarning, match="there are the presets"):
        assert sl.Recipe.best(tmp_path / "frames") == sl.Recipe.best(frames)
    result = sl.integrate(frames, sl.Recipe.best(frames), progress=False)
    assert np.isfinite(result.image).all()


def test_zero_is_a_sample_of_a_bias_frame():
    assert not sl.Recipe.from_dict({"preset": "bias"}).range_clip_low


@pytest.mark.parametrize("values", [None, [1, 2], "preset"])
def test_what_is_no_mapping_is_no_recipe(values):
    with pytest.raises(sl.RecipeError, match="names and values"):
        sl.Recipe.from_dict(values)
