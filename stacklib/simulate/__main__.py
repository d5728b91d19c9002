"""Regenerate the sample data: ``python -m stacklib.simulate FOLDER``."""

import argparse
from collections.abc import Sequence

from stacklib.simulate.samples import make_sample_data


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the sample sets and print their size."""
    parser = argparse.ArgumentParser(prog="python -m stacklib.simulate", description="Make the sample data.")
    parser.add_argument("folder", nargs="?", default="sample_data", help="folder of the sample data")
    paths = make_sample_data(parser.parse_args(arguments).folder)
    print(f"{len(paths)} frames, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
