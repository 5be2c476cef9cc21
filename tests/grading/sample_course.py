"""The `course` command with the sample exercise only, in its worker processes too."""

import sys

from course import cli
from course.exercises import spec


def dask_setup(worker=None):
    """Know the sample only; dask calls this in a worker that preloads this file."""
    spec.MODULES.clear()
    spec.MODULES["00_sample"] = "tests.exercises.sample"


if __name__ in ("__main__", "__mp_main__"):  # the second is a worker's
    dask_setup()
if __name__ == "__main__":
    sys.exit(cli.main())
