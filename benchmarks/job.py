"""Run one job in a separate process: ``python job.py NAME '{"folder": ...}'``."""

import json
import sys

import contenders

JOBS = {
    "idle": lambda: None,
    "integrate": contenders.integrate,
    "integrate_preset": contenders.integrate_preset,
    "integrate_sample": contenders.integrate_sample,
    "ccdproc": contenders.ccdproc_combine,
    "median": contenders.read_and_median,
    "read": contenders.read_cube,
}

if __name__ == "__main__":
    JOBS[sys.argv[1]](**json.loads(sys.argv[2]))
