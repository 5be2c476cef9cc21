"""The engine on vector units that this machine does not have, or is told not to use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from course.compiled import user_cache
from tests.engine.test_cpu import JOBS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "environment, unit, shape",
    [
        ({"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"}, (), (6, 2, 4, 16)),
        ({}, (64, 32), (12, 2, 16, 32)),  # LLVM splits vectors that are too wide
        ({}, (16, 32), (12, 2, 4, 32)),  # as NEON
    ],
    ids=["sse", "avx512", "neon"],
)
def test_the_same_results_on_other_vector_units(environment, unit, shape, request):
    """Every loop, compiled anew for another machine, is what the definition says.

    That takes half a minute, once: the machine code is kept, apart from the course's own.
    """
    folder = user_cache() / "other-machines" / request.node.callspec.id
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.convolutions", *map(str, unit)],
        cwd=ROOT,
        env=os.environ | environment | {"COURSE_CACHE": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    *found, _ = done.stdout.split(maxsplit=4)
    assert tuple(map(int, found)) == shape
    assert set(done.stdout.split()[4:]) >= JOBS - {"_pool_relu_dx"} | {"_tiles"}
