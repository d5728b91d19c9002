from .batches import ADVISE, OVERHEAD, Batch, BatchJob, Need, recipe_for, run_batch
from .summary import Row, summary_table
from .targets import Target, find_targets

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
