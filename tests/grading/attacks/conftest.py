"""The world around the boxes, and the boxes that work here."""

import pytest

from course.grading.sandbox import tiers
from tests.grading.attacks.world import World


@pytest.fixture(scope="module")
def world():
    """Canaries for all attacks of a module."""
    world = World()
    yield world
    world.close()


@pytest.fixture(scope="session")
def best():
    """The best kind of box that works here."""
    working = [tier for tier, reason in tiers().items() if not reason]
    if not working:
        pytest.skip(f"no box works here: {tiers()}")
    return working[0]
