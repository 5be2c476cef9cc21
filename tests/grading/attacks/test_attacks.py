"""Every attack of the table, in every kind of box that works here.

An attack fails if its author has no point more than for the same wrong answer without it,
has read and changed nothing outside, the right answers beside it have their points, the
grader goes on, and nothing is left: no file, no process.
"""

import pytest

from course.grading.sandbox import tiers
from tests.grading.attacks.grading import graded, notebook, points, run
from tests.grading.attacks.table import ATTACKS

# without namespaces, too: these walls are others there
WALLS = "escape", "persistence"
MORE_WALLS = "test theft", "reference theft", "resources"


@pytest.fixture(scope="module")
def control(world, tmp_path_factory):
    """Return what an honest answer gets; each is graded once."""
    known: dict[tuple, float] = {}

    def control(attack, tier):
        key = attack.question, attack.honest, tier
        if key not in known:
            made = notebook({attack.question: attack.honest})
            folder = tmp_path_factory.mktemp("control")
            submission, seen = graded(made, world, folder, tier)
            assert submission.status == "graded", submission.says
            assert world.canary.encode() not in seen
            known[key] = points(submission, attack.question)
        return known[key]

    return control


def grade_one(attack, tier, world, control, tmp_path):
    """Return what an attack did."""
    outcome = run(attack, world, tmp_path, tier, control(attack, tier))
    assert outcome.submission.isolation == tier
    assert outcome.seconds < 4 * attack.seconds + 60
    return outcome


def named(attack):
    return f"{attack.family}: {attack.name}"


CASES = [
    pytest.param(attack, tier, id=f"{tier}: {named(attack)}", marks=marks)
    for tier, families, marks in (
        ("strict", {attack.family for attack in ATTACKS}, ()),
        ("landlock", WALLS, ()),
        ("landlock", MORE_WALLS, pytest.mark.slow),
    )
    for attack in ATTACKS
    if attack.family in families
]


@pytest.mark.parametrize(("attack", "tier"), CASES)
def test_attack_gains_nothing(attack, tier, world, control, tmp_path):
    if reason := tiers()[tier]:
        pytest.skip(f"no box of this kind here: {reason}")
    outcome = grade_one(attack, tier, world, control, tmp_path)
    assert not outcome.harm
    assert outcome.submission.status == "graded"


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=named)
def test_attack_is_a_real_one(attack, world, control, tmp_path):
    """Without a box those that walls stop do succeed: so it is the walls that stop them."""
    if attack.works_unboxed is None:
        pytest.skip("it would hurt the machine")
    outcome = grade_one(attack, "none", world, control, tmp_path)
    assert bool(outcome.harm) == attack.works_unboxed, outcome.harm


def test_names_are_told_apart():
    assert len(set(map(named, ATTACKS))) == len(ATTACKS) >= 80
