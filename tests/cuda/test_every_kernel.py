"""Every kernel of the course has been run in the simulator by a test.

tests/cuda/conftest.py lets this file come last.
"""

from pathlib import Path

import pytest

from course import cuda
from tests.cuda.every import modules


def all_ran(request):
    """Say whether all tests of this folder were chosen to run before this one."""
    chosen = {item.path for item in request.session.items}
    some = request.config.option.keyword or any("::" in a for a in request.config.args)
    return not some and chosen >= set(Path(__file__).parent.glob("test_*.py"))


@pytest.mark.sim
def test_every_kernel_was_run_by_a_test(request):
    modules()
    course = {name: k for name, k in cuda.KERNELS.items() if name.startswith("course.")}
    assert len(course) > 100
    silent = sorted(name for name, kernel in course.items() if not kernel.runs)
    if silent and not all_ran(request):
        pytest.skip("only a part of tests/cuda was chosen")
    assert silent == []
