"""Questions that ask for a class or a figure, in a notebook."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from course import check
from course.exercises import spec
from course.exercises.call import Changed, Handle, Raised, Script, as_data, call
from course.exercises.verdict import steps
from tests.exercises import objects


@pytest.fixture
def said(monkeypatch, capsys):
    """Check a class or function that must not pass; return what is printed."""
    monkeypatch.setitem(spec.MODULES, "00_objects", "tests.exercises.objects")

    def said(answer):
        assert check(answer) is not answer
        lines = capsys.readouterr().out.splitlines()
        assert 1 < len(lines) <= 6
        return lines

    return said


def mean_class(**members):
    """Return a right class with some of its members replaced."""

    def start(self):
        self.total, self.count = 0.0, 0

    def add(self, x):
        self.total += x.sum()
        self.count += len(x)

    right = {
        "__init__": start,
        "add": add,
        "mean": property(lambda self: self.total / self.count),
    }
    return type("RunningMean", (), right | members)


class Value:
    """A tape as a student writes it: each result knows how to hand its gradient back."""

    def __init__(self, value):
        self.value, self.grad, self.back = value, 0.0, None

    def __add__(self, other):
        out = Value(self.value + other.value)
        out.back = lambda dy: (self.hand(dy), other.hand(dy))
        return out

    def __mul__(self, other):
        out = Value(self.value * other.value)
        out.back = lambda dy: (self.hand(dy * other.value), other.hand(dy * self.value))
        return out

    def hand(self, dy):
        self.grad += dy
        if self.back:
            self.back(dy)

    def backward(self):
        self.hand(1.0)


def squares_figure(n, title):
    axes = Figure().subplots()
    axes.plot(range(n), [k * k for k in range(n)], "ro--", label="any colour will do")
    axes.set_title(title)
    return axes.figure


@pytest.mark.parametrize("answer", [mean_class(), Value, squares_figure])
def test_right_answer_is_returned(answer, monkeypatch, capsys):
    monkeypatch.setitem(spec.MODULES, "00_objects", "tests.exercises.objects")
    assert check(answer) is answer
    assert ": passed (" in capsys.readouterr().out


def test_wrong_class_shows_the_script(said):
    assert said(mean_class(mean=property(lambda self: self.total / 2))) == [
        "RunningMean: wrong in 25 of 25 cases",
        "Smallest case: a = RunningMean(); a.add([1., 3.]); a.add([5.]); a.mean",
        "a.mean: Yours 4.5, expected 3",
        "Stuck? hint(RunningMean)",
    ]


def test_known_mistake_of_a_class_is_named(said):
    def add(self, x):
        self.total, self.count = x.sum(), len(x)

    lines = said(mean_class(add=add))
    assert lines[1] == "You forget the numbers before the last call."


def test_tape_that_replaces_gradients_is_named(said):
    class Value(objects.ValueReplaced):
        pass

    lines = said(Value)
    assert lines[1] == "grad is replaced: add, where paths meet."
    assert lines[2].startswith("Smallest case: a = Value(2.0); b = Value(3.0); c = a * b; ")
    assert lines[3] == "a.grad: Yours 1, expected 4"


def test_error_in_a_method_has_its_line(said):
    def add(self, x):
        self.total += x.summe()

    lines = said(mean_class(add=add))
    assert "AttributeError: 'numpy.ndarray' object has no attribute 'summe'" in lines
    assert f"Line {add.__code__.co_firstlineno + 1}: self.total += x.summe()" in lines


def test_missing_property(said):
    class RunningMean:
        def add(self, x):
            pass

    says = "AttributeError: 'RunningMean' object has no attribute 'mean'"
    assert said(RunningMean)[2] == says


def test_class_that_changes_what_it_is_given(said):
    def add(self, x):
        x *= 2
        self.total += x.sum() / 2
        self.count += len(x)

    says = "Your class changes what it is given in a.add([1., 3.]). Work on a copy."
    assert says in said(mean_class(add=add))


def test_number_where_an_object_is_expected(said):
    class Value(objects.Value):
        def __add__(self, other):
            return self.value + other.value

        __mul__ = __add__

        def backward(self):
            pass

    lines = said(Value)
    assert lines[0] == "Value: stops with an error in 24 of 24 cases"  # float + Value
    result = call(
        Value, Script([("new", (1.0,)), ("call", Handle(0), "__add__", (Handle(0),))])
    )
    assert result == [Handle(0), 2.0]


def test_stub_of_a_class_is_not_attempted(said):
    def __init__(self):
        raise NotImplementedError("your code here")

    def add(self, x):
        raise NotImplementedError("your code here")

    @property
    def mean(self):
        raise NotImplementedError("your code here")

    for stub in ({"__init__": __init__}, {"add": add}, {"mean": mean}):
        assert said(mean_class(**stub))[0] == "RunningMean: not attempted"
    stand_in = check(mean_class(__init__=__init__))
    made = stand_in()
    made.add([1, 2])
    assert made.mean == 1.5
    assert any("not yours" in line for line in said(stand_in))


def test_results_are_what_they_were_at_their_step():
    class Bag:
        def __init__(self):
            self.things = []

        def put(self, x):
            self.things.append(x)
            return self.things

    script = [("new", ())] + [("call", Handle(0), "put", (k,)) for k in range(2)]
    assert call(Bag, Script(script)) == [Handle(0), [0], [0, 1]]


def test_handles_inside_of_lists_are_objects():
    class Chain:
        def __init__(self, parts=()):
            self.parts = parts

        def count(self):
            return 1 + sum(part.count() for part in self.parts)

    script = (
        ("new", ()),
        ("new", ([Handle(0), Handle(0)],)),
        ("call", Handle(1), "count", ()),
    )
    assert call(Chain, Script(script)) == [Handle(0), Handle(1), 3]
    assert steps(Script(script), "Chain")[1] == "b = Chain([a, a])"


def test_script_stops_at_the_first_error():
    taken = []

    class Bad:
        def go(self):
            taken.append(1)
            raise ValueError("no further")

    go = "call", Handle(0), "go", ()
    outcome = call(Bad, Script([("new", ()), go, go]))
    assert isinstance(outcome, Raised) and outcome.says == "no further"
    assert taken == [1]


def test_change_is_found_in_its_step():
    class Bad:
        def spoil(self, x):
            x[0] = 7

    steps = [("new", ()), ("call", Handle(0), "spoil", (np.ones(2),))]
    assert call(Bad, Script(steps)) == Changed(1)


def test_wrong_figures_are_told_what_differs(said):
    def cubes(n, title):
        axes = Figure().subplots()
        axes.plot(range(n), [k**3 for k in range(n)])
        axes.set_title(title)
        return axes.figure

    cubes.__name__ = "squares_figure"
    lines = said(cubes)
    assert lines[1] == "These are cubes."
    assert lines[3].endswith("axes: lines: y: At [2]: yours 8, expected 4")


def test_no_figure(said):
    def squares_figure(n, title):
        return 3

    assert "Yours is an int, expected a figure" in said(squares_figure)


def test_figure_data_are_what_is_seen():
    axes = Figure().subplots()
    axes.plot([1, 2], [3, 4])
    axes.bar([0, 1], [5, 6])
    axes.scatter([1], [2])
    image: AxesImage = axes.imshow([[1.0, 2.0]])
    axes.set(title="t", xlabel="x", ylabel="y")
    (data,) = as_data(axes.figure)["axes"]
    assert (data["title"], data["xlabel"], data["ylabel"]) == ("t", "x", "y")
    np.testing.assert_array_equal(data["lines"][0]["y"], [3, 4])
    assert data["bars"] == [[5, 6]]
    np.testing.assert_array_equal(data["points"][0], [[1, 2]])
    np.testing.assert_array_equal(data["images"][0], image.get_array())
    assert as_data(3) == 3
