"""What every test may ask for."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    """A generator that gives the same numbers in every run."""
    return np.random.default_rng(0)
