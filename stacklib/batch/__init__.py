"""Batches: integrate many targets, only what is missing or changed."""

from stacklib.batch.batches import ADVISE, OVERHEAD, Batch, Need, recipe_for, run_batch
from stacklib.batch.summary import Row, summary_table
from stacklib.batch.targets import Target, find_targets
from stacklib.recipe.batch_job import BatchJob

__all__ = [
    "ADVISE",
    "OVERHEAD",
    "Batch",
    "BatchJob",
    "Need",
    "Row",
    "Target",
    "find_targets",
    "recipe_for",
    "run_batch",
    "summary_table",
]
