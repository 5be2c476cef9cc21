"""Questions of a notebook that does not exist, to try the machinery on."""

import numpy as np

from course.exercises.picture import Panel, Window
from course.exercises.spec import Mutant, Question, Speed


def running_sum(x):
    """Return the sums of the first 1, 2, ... numbers, from the definition."""
    return np.array([x[: k + 1].sum() for k in range(len(x))], x.dtype)


def running_sum_cases(rng):
    """Yield vectors, the shortest first."""
    yield (np.array([1.0, 2.0]),)
    for length in range(1, 30):
        yield (rng.normal(size=length),)
        yield (rng.normal(size=2 * length).astype(np.float32)[::2],)


def added(arguments, index):
    """Show what is summed."""
    (x,) = arguments
    text = " + ".join(f"{element:.3g}" for element in x[: index[0] + 1])
    return Window(text, (Panel("x", x, (0,), (index[0] + 1,)),))


def slope_backward(dy, x):
    """Return the gradients of y = 3 x and of their sum."""
    return 3 * dy, dy.sum()


def slope_cases(rng):
    """Yield an upstream gradient and an input of one shape."""
    for length in range(1, 30):
        yield rng.normal(size=length), rng.normal(size=length)


def breaker():
    """Return an x for which sum(x) < 0 but x[0] > 0."""
    return np.array([1.0, -2.0])


def breaks(arguments, x):
    """Judge an x for which sum(x) < 0 but x[0] > 0."""
    x = np.asarray(x, float)
    return None if x[0] > 0 > x.sum() else f"x sums to {x.sum():g} and begins {x[0]:g}"


def squares_in_python(x):
    """Return the sum of squares, one element after the other."""
    total = 0.0
    for element in x:
        total += element * element
    return total


QUESTIONS = (
    Question(
        name="running_sum",
        points=3,
        oracle=running_sum,
        cases=running_sum_cases,
        mutants=(
            Mutant("You leave out x[k] itself.", lambda x: np.cumsum(x) - x),
            Mutant("You sum from the end.", lambda x: np.cumsum(x[::-1])[::-1]),
            Mutant("You return the total only. Keep each sum.", lambda x: x.sum()),
        ),
        hints=("What is y[1] made of?", "y[k] = y[k-1] + x[k]"),
        window=added,
    ),
    Question(
        name="slope_backward",
        points=2,
        oracle=slope_backward,
        cases=slope_cases,
        mutants=(
            Mutant("dx is made of dy, not x.", lambda dy, x: (3 * x, dy.sum())),
            Mutant("You divide by the length.", lambda dy, x: (3 * dy, dy.mean())),
        ),
        hints=("Each dx is 3 dy.",),
    ),
    Question(
        name="breaker",
        points=1,
        oracle=breaker,
        cases=lambda rng: iter([()]),
        mutants=(Mutant("Zeros have no sign.", lambda: np.zeros(2)),),
        hints=("Two numbers are enough.",),
        judge=breaks,
    ),
    Question(
        name="sum_squares",
        points=4,
        oracle=lambda x: np.square(x).sum(),
        cases=lambda rng: ((rng.normal(size=n),) for n in range(1, 30)),
        mutants=(Mutant("You add x, not its square.", lambda x: x.sum()),),
        hints=("@njit",),
        speed=Speed(
            plain=squares_in_python,
            arguments=lambda rng: (rng.normal(size=300_000),),
            floor=5.0,
        ),
    ),
)
