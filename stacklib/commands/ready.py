"""``python -m stacklib.commands.ready``: compile what notebooks 1 to 3 need, after the first run.

The code of each notebook runs once on the sample frames, without a browser, and nothing of it is kept but the
compiled code.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from stacklib.notebook.running import notebooks_folder
from stacklib.utils.ahead.processes import Step, compile_ahead

__all__ = ["main", "run_cells"]

#: The notebooks, and how many seconds their code takes if nothing is compiled but what a run needs.
NOTEBOOKS = {"2_choose_rejection": 20.0, "3_inspect_rejection": 8.0, "1_select_frames": 4.0}
#: What a process is told to call.
RUN_CELLS = "stacklib.commands.ready:run_cells"
#: Title of the bar.
READY = "getting notebooks 1 to 3 ready (once)"


def main() -> int:
    """Compile what the notebooks need, several at a time. Nothing is done if that is known to be kept."""
    steps = [Step(RUN_CELLS, seconds, (name,)) for name, seconds in NOTEBOOKS.items()]
    compile_ahead(steps, title=READY)
    return 0


def run_cells(name: str) -> None:
    """Run the code of a notebook with its defaults, in this process."""
    import matplotlib

    matplotlib.use("Agg")
    content = json.loads((notebooks_folder() / f"{name}.ipynb").read_text(encoding="utf-8"))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), namespace)


if __name__ == "__main__":
    sys.exit(main())
