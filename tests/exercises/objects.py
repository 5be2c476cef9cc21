"""Questions of a notebook that does not exist: two classes, and a figure."""

import numpy as np
from matplotlib.figure import Figure

from course.exercises.call import Handle, Script
from course.exercises.spec import Mutant, Question


class RunningMean:
    """The mean of all numbers so far, from the definition."""

    def __init__(self):
        self.seen = []

    def add(self, x):
        """Take in the numbers of a vector."""
        self.seen += list(x)

    @property
    def mean(self):
        """The mean; 0 before the first number."""
        return float(np.mean(self.seen)) if self.seen else 0.0


class MeanOfLast(RunningMean):
    """A mistake: older numbers are lost."""

    def add(self, x):
        """Forget the others."""
        self.seen = list(x)


class MeanOfMeans(RunningMean):
    """A mistake: each batch counts the same."""

    def add(self, x):
        """Take in the mean of a vector."""
        self.seen.append(np.mean(x))


def mean_cases(rng):
    """Yield scripts that add some vectors and look at the mean after each."""
    look = "get", Handle(0), "mean"
    first = "call", Handle(0), "add", (np.array([1.0, 3.0]),)
    second = "call", Handle(0), "add", (np.array([5.0]),)
    yield Script([("new", ()), first, second, look])
    for count in range(2, 26):
        steps = [("new", ())]
        for _ in range(count):
            x = rng.normal(1, 2, rng.integers(1, 5))
            steps += [("call", Handle(0), "add", (x,)), look]
        yield Script(steps)


class Value:
    """A number that remembers how it was made; its gradients are complex-step slopes."""

    def __init__(self, value, parts=(), rule=None):
        self.value, self.parts, self.rule, self.grad = value, parts, rule, 0.0

    def __add__(self, other):
        return self.made(lambda a, b: a + b, other)

    def __mul__(self, other):
        return self.made(lambda a, b: a * b, other)

    def made(self, rule, other):
        """Return what the rule makes of two values."""
        return type(self)(rule(self.value, other.value), (self, other), rule)

    def moved(self, node):
        """Return the value if a node were a little larger, along the imaginary axis."""
        if self is node:
            return self.value + 1e-30j
        parts = [part.moved(node) for part in self.parts]
        return self.rule(*parts) if parts else self.value

    def backward(self):
        """Add to the grad of each value below this one its slope."""
        below, todo = set(), [self]
        while todo:
            node = todo.pop()
            below.add(node)
            todo += node.parts
        for node in below:
            node.grad += self.moved(node).imag / 1e-30


class ValueReplaced(Value):
    """A mistake: = for +=, which shows where a value is used twice."""

    def backward(self):
        """Hand the gradient down one path after the other."""
        self.hand(1.0)

    def hand(self, dy):
        """Set the gradient and go on."""
        self.grad = dy
        for k, part in enumerate(self.parts):
            numbers = [p.value for p in self.parts]
            numbers[k] = numbers[k] + 1e-30j
            part.hand(dy * self.rule(*numbers).imag / 1e-30)


def value_cases(rng):
    """Yield scripts that compute with two leaves and ask for their gradients."""
    times, plus = "__mul__", "__add__"
    for k in range(24):
        a, b = (2.0, 3.0) if k == 0 else rng.normal(size=2)
        yield Script(
            [
                ("new", (a,)),
                ("new", (b,)),
                ("call", Handle(0), times if k % 2 == 0 else plus, (Handle(1),)),
                ("call", Handle(2), plus if k % 3 == 0 else times, (Handle(0),)),
                ("get", Handle(3), "value"),
                ("call", Handle(3), "backward", ()),
                ("get", Handle(0), "grad"),
                ("get", Handle(1), "grad"),
            ]
        )


def squares_figure(n, title):
    """Draw the squares of the first n whole numbers as a line, with a title."""
    fig = Figure()
    axes = fig.subplots()
    axes.plot(np.arange(n), np.arange(n) ** 2)
    axes.set_title(title)
    return fig


def cubes_figure(n, title):
    """A mistake."""
    fig = Figure()
    axes = fig.subplots()
    axes.plot(np.arange(n), np.arange(n) ** 3)
    axes.set_title(title)
    return fig


def no_title_figure(n, title):
    """A mistake."""
    return squares_figure(n, "")


QUESTIONS = (
    Question(
        name="RunningMean",
        points=3,
        oracle=RunningMean,
        cases=mean_cases,
        mutants=(
            Mutant("You forget the numbers before the last call.", MeanOfLast),
            Mutant("A mean of means weighs short vectors too much.", MeanOfMeans),
        ),
        hints=("Keep the sum and the count.",),
    ),
    Question(
        name="Value",
        points=3,
        oracle=Value,
        cases=value_cases,
        mutants=(Mutant("grad is replaced: add, where paths meet.", ValueReplaced),),
        hints=("self.grad += ...",),
    ),
    Question(
        name="squares_figure",
        points=1,
        oracle=squares_figure,
        cases=lambda rng: ((n, f"{n} squares, {rng.integers(9)}") for n in range(3, 23)),
        mutants=(
            Mutant("These are cubes.", cubes_figure),
            Mutant("The title is missing.", no_title_figure),
        ),
        hints=("axes.plot(x, y)",),
    ),
)
