"""A batch that proposes the limits of each target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from astropy.table import Table

import stacklib as sl
from stacklib.batch import Batch, run_batch
from stacklib.batch.target_run import TargetRun
from stacklib.commands.batch import batch_from_arguments
from stacklib.explore.advisor import memory_for
from stacklib.recipe.batch_job import BatchJob
from stacklib.simulate import Session, simulate_frames


@pytest.mark.filterwarnings("ignore::stacklib.errors.StacklibWarning")
def test_limits_are_proposed_for_each_target(tmp_path):
    for name, count in (("many", 10), ("few", 3), ("own", 4)):
        night = simulate_frames(count, 64, 80, 1, seed=count, trails=1, dither=2, session=Session(name))
        night.save(tmp_path / name / "4_Registered")
    sl.Recipe(rejection="min_max").save(tmp_path / "own" / "recipe.yaml")
    batch = Batch(BatchJob(str(tmp_path), "advise"))
    assert dict(zip(batch.plan["target"], batch.plan["recipe"], strict=True)) == {
        "few": "advised",
        "many": "advised",
        "own": "its own recipe.yaml",
    }
    batch = run_batch(tmp_path, "advise", progress=False)
    assert not batch.failed, batch.summary
    advice = sl.advise(tmp_path / "many" / "4_Registered", progress=False)
    expected = {"few": sl.Recipe.suggest(3), "many": advice.recipe, "own": sl.Recipe(rejection="min_max")}
    notes = {row.target.name: " ".join(row.record.notes) for row in batch.rows}
    for name, recipe in expected.items():
        (table,) = (tmp_path / name / "5_Integration").glob("*_frames.ecsv")
        found = Table.read(table, format="ascii.ecsv").meta["recipe"]
        assert (found["rejection"], found["sigma_low"], found["sigma_high"]) == (
            recipe.rejection,
            recipe.sigma_low,
            recipe.sigma_high,
        )
    proposed = {row.target.name: row.record.advice for row in batch.rows}
    assert proposed == {"many": advice.reason, "few": "", "own": ""}
    # What was proposed is told, but is no warning.
    assert "too few to try limits" in notes["few"] and "Limits" not in notes["many"] + notes["own"]
    ran = {row.target.name: row.known["recipe"]["sigma_high"] for row in batch.rows}
    assert ran == {name: recipe.sigma_high for name, recipe in expected.items()}
    assert f"{batch.rows[1].limits}</span>" in batch.page.read_text("utf-8").replace("\xa0", " ")
    assert batch.rows[1].limits.endswith(f" / {advice.recipe.sigma_high:g}, suggested")
    again = Batch(BatchJob(str(tmp_path), "advise"))
    assert {row.status for row in again.rows} == {"done"}
    plain = {row.target.name: row.reason for row in Batch(BatchJob(str(tmp_path))).rows}
    assert plain == {"few": "limits changed", "many": "limits changed", "own": "unchanged"}


def test_a_run_that_takes_advice_has_the_memory_for_it(tmp_path):
    simulate_frames(4, 64, 80, 1, seed=1, session=Session("small")).save(tmp_path / "T" / "4_Registered")
    batches = {recipe: Batch(BatchJob(str(tmp_path), recipe, memory="8GB")) for recipe in ("", "advise")}
    target = replace(batches[""].rows[0].target, shape=(3, 512, 512), frames=tuple(map(Path, "abcdefgh")))
    for batch in batches.values():
        batch.rows[0].status = "waiting"
    need = {recipe: batch.need(target).integration for recipe, batch in batches.items()}
    assert need["advise"] == memory_for(8, 3, 512, 512) > need[""]


@pytest.mark.filterwarnings("ignore::stacklib.errors.StacklibWarning")
def test_advice_starts_from_the_shared_recipe(tmp_path):
    simulate_frames(4, 64, 80, 1, seed=1, session=Session("small")).save(tmp_path / "T" / "4_Registered")
    given = [("recipe", "advise"), ("rejection", "percentile"), ("weights", "none")]
    batch = batch_from_arguments(str(tmp_path), given)
    assert batch.advises and (batch.recipe.rejection, batch.recipe.weights) == ("percentile", "none")
    run = TargetRun(batch.rows[0].target, batch.job_for(batch.rows[0].target), advised=True)
    run._take_advice()
    assert (run.job.recipe.rejection, run.job.recipe.weights) == ("percentile", "none")
    advice = sl.advise(tmp_path / "T" / "4_Registered", batch.recipe, progress=False)
    assert run.job.recipe == advice.recipe
