"""course/graph.py: gradients by hand, by slopes, by PyTorch; and what it refuses."""

import gc
import operator
import weakref

import numpy as np
import pytest

from course.checks import slope
from course.graph import Variable, exp, log, maximum, record
from course.operations import (
    concat,
    relu,
    residual_sum,
    sigmoid,
    softmax_cross_entropy,
    tanh,
)


def variables(*values):
    return [Variable(value) for value in values]


def grads(*leaves):
    return [leaf.grad.tolist() for leaf in leaves]


# --- examples that others have worked out ------------------------------------------------


def test_a_product_of_a_sum():
    """The first circuit of cs231n.github.io/optimization-2."""
    x, y, z = variables(-2, 5, -4)
    q = x + y
    f = q * z
    f.backward()
    assert f.value == -12
    assert grads(x, y, z, q, f) == [-4, -4, 3, -4, 1]


def test_a_neuron():
    """Its second circuit, with the numbers to the two digits printed there."""
    w0, x0, w1, x1, w2 = variables(2, -1, -3, -2, -3)
    f = 1 / (1 + exp(-(w0 * x0 + w1 * x1 + w2)))
    f.backward()
    assert f.value.round(2) == 0.73
    assert np.round(grads(w0, x0, w1, x1, w2), 2).tolist() == [
        -0.2,
        0.39,
        -0.39,
        -0.59,
        0.2,
    ]


def test_a_long_expression_with_many_forks():
    """The example of micrograd's README, with its four digits."""
    a, b = variables(-4, 2)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + relu(b + a)
    d += 3 * d + relu(b - a)
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    assert round(float(g.value), 4) == 24.7041
    assert np.round(grads(a, b), 4).tolist() == [138.8338, 645.5773]


def test_a_variable_of_two_sums_gets_both_gradients():
    """s1 = w4 (y1 + y2), s2 = w5 (y2 + y3), and two losses: dy2 = w4 dL/ds1 + w5 dL/ds2."""
    y1, y2, y3, w4, w5 = variables(1, 2, 3, 10, 100)
    s1, s2 = w4 * (y1 + y2), w5 * (y2 + y3)
    (s1**2 / 2 + 7 * s2).backward()
    assert grads(y1, y2, y3) == [10 * 30, 10 * 30 + 100 * 7, 100 * 7]


def test_a_vectorised_product_has_the_shapes_of_its_factors():
    """f = |w x|^2, worked out in CS231n's lecture 4 of 2017: dw and dx to its digits."""
    w, x = variables(np.array([[0.1, 0.5], [-0.3, 0.8]]), np.array([0.2, 0.4]))
    f = ((w @ x) ** 2).sum()
    f.backward()
    assert f.value.round(3) == 0.116
    np.testing.assert_allclose(w.grad, [[0.088, 0.176], [0.104, 0.208]], atol=1e-12)
    np.testing.assert_allclose(x.grad, [-0.112, 0.636], atol=1e-12)


# --- every operation against its slope ---------------------------------------------------

SHAPES = [
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((), (2, 3)),
    ((3, 1), (1, 4)),
    ((2, 1, 3), (4, 1)),
]
PAIRS = {
    **{f.__name__: f for f in (operator.add, operator.sub, operator.mul, maximum)},
    "truediv": operator.truediv,
}


def check(function, *arrays):
    """Compare the gradients of sum(function(*arrays) * r) with their slopes, r random."""
    leaves = [Variable(a) for a in arrays]
    y = function(*leaves)
    r = np.random.default_rng(1).normal(size=y.shape)
    y.backward(r)
    for leaf, a in zip(leaves, arrays, strict=True):
        expected = slope(lambda: np.sum(function(*map(Variable, arrays)).value * r), a)
        np.testing.assert_allclose(leaf.grad, expected, 1e-7, 1e-7)
        assert leaf.grad.dtype == a.dtype


def positive(rng, shape):
    """Return numbers from 0.5 to 2.5, no two near each other."""
    return np.asarray(0.5 + rng.permutation(np.prod(shape, dtype=int)).reshape(shape) / 7.3)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_broadcast_arithmetic_is_the_slope(name, shapes, rng):
    a, b = positive(rng, shapes[0]), np.asarray(positive(rng, shapes[1]) + 0.3)
    check(PAIRS[name], a, b)
    check(PAIRS[name], b, a)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: -x,
        exp,
        log,
        *(lambda x, n=n: x**n for n in (2, 3, 0.5, -1, 0, 1)),
        lambda x: 2 - x,
        lambda x: 2 / x,
        lambda x: np.arange(1.0, 5.0) * x,
        lambda x: x.sum(),
        lambda x: x.sum(axis=1),
        lambda x: x.sum(axis=(0, 2), keepdims=True),
        lambda x: x.sum(axis=-1, keepdims=True),
        lambda x: x.mean(),
        lambda x: x.mean(axis=0),
        lambda x: x.mean(axis=(1, 2), keepdims=True),
        lambda x: x.reshape(6, -1),
        lambda x: x.reshape((4, 3, 2)),
        lambda x: x.transpose(),
        lambda x: x.transpose(1, 0, 2),
        lambda x: x.T,
        lambda x: x[1],
        lambda x: x[:, 1:, ::-2],
        lambda x: x[..., None, -1],
        lambda x: x[[0, 1, 1, 1], [2, 0, 0, 1]],
        lambda x: x[x.value > 1.5],
        lambda x: x.max(),
        lambda x: x.max(axis=0),
        lambda x: x.max(axis=-1),
        lambda x: x.reshape(6, 4) @ np.arange(4.0),
        lambda x: x.reshape(6, 4).T @ x.reshape(6, 4),
        lambda x: np.arange(12.0).reshape(2, 6) @ x.reshape(6, 4),
        lambda x: x.reshape(24) @ x.reshape(24),
    ],
)
def test_an_operation_of_one_array_is_the_slope(function, rng):
    check(function, positive(rng, (2, 3, 4)))


@pytest.mark.parametrize(
    "shapes", [((3, 4), (4, 2)), ((4,), (4, 2)), ((3, 4), (4,)), ((4,), (4,))]
)
def test_matmul_is_the_slope(shapes, rng):
    check(operator.matmul, *(rng.normal(size=shape) for shape in shapes))


def test_matmul_is_that_of_numpy(rng):
    a, b = rng.normal(size=(5, 7)), rng.normal(size=(7, 3))
    np.testing.assert_allclose((Variable(a) @ b).value, a @ b, 1e-13)
    np.testing.assert_allclose((a[0] @ Variable(b)).value, a[0] @ b, 1e-13)


def test_first_of_equals_gets_the_gradient():
    x = Variable([[3.0, 7.0, 7.0], [7.0, 1.0, 1.0]])
    x.max().backward()
    assert x.grad.tolist() == [[0, 1, 0], [0, 0, 0]]
    x.max(axis=0).sum().backward()
    assert x.grad.tolist() == [[0, 1, 1], [1, 0, 0]]
    a, b = variables(2, 2)
    maximum(a, b).backward()
    assert grads(a, b) == [1, 0]


def test_a_power_of_nought_has_no_slope_anywhere():
    x = Variable(np.array([0.0, 2.0]))
    (x**0).sum().backward()
    assert x.grad.tolist() == [0, 0]


# --- random graphs against PyTorch -------------------------------------------------------


def random_program(rng):
    """Return steps (operation, operands) on six leaves; any result may be used again."""
    steps = []
    for k in range(6, 6 + int(rng.integers(5, 25))):
        name = rng.choice(list(STEPS))
        steps.append((name, [int(rng.integers(k)) for _ in range(2)]))
    return steps


STEPS = {  # what the name means here, and in PyTorch; x and y broadcast with each other
    "add": (lambda x, y: x + y,) * 2,
    "sub": (lambda x, y: x - y,) * 2,
    "mul": (lambda x, y: x * y,) * 2,
    "div": (lambda x, y: x / (y * y + 1),) * 2,
    "square": (lambda x, y: x**2 / 3,) * 2,
    "row": (lambda x, y: x.mean(axis=-1, keepdims=True),) * 2,
    "all": (lambda x, y: x.sum() * 0.1,) * 2,
    "turn": (lambda x, y: x.T.reshape(*x.shape) if x.shape == (4, 4) else x,) * 2,
    "some": (lambda x, y: x[[2, 0, 0, 1]] * 0.5 if x.shape == (4, 4) else x,) * 2,
    "product": (lambda x, y: x @ y / 4 if x.shape == y.shape == (4, 4) else x,) * 2,
    "tanh": (lambda x, y: tanh(x), lambda x, y: x.tanh()),
    "sigmoid": (lambda x, y: sigmoid(x), lambda x, y: x.sigmoid()),
    "relu": (lambda x, y: relu(x), lambda x, y: x.relu()),
    "exp": (lambda x, y: exp(-x * x), lambda x, y: (-x * x).exp()),
    "log": (lambda x, y: log(1 + y * y), lambda x, y: (1 + y * y).log()),
    "max": (lambda x, y: maximum(x, y), lambda x, y: x.maximum(y)),
    "most": (lambda x, y: x.max(), lambda x, y: x.max()),
    "fork": (
        lambda x, y: residual_sum(x, tanh(x)),
        lambda x, y: x + x.tanh(),
    ),
    "branches": (
        lambda x, y: (
            concat([x, x * 2], 0)[4 - x.shape[0] :][:4] if x.shape == (4, 4) else x
        ),
        lambda x, y: torch_cat(x)[4 - x.shape[0] :][:4] if x.shape == (4, 4) else x,
    ),
}


def torch_cat(x):
    import torch

    return torch.cat([x, x * 2], 0)


def run(program, leaves, side):
    """Return the last value of a program, plus a little of every other, as one number."""
    values = list(leaves)
    for name, operands in program:
        values.append(STEPS[name][side](*(values[k] for k in operands)))
    total = values[-1].sum()
    for value in values[6:-1:3]:
        total = total + 0.01 * value.sum()
    return total


def test_200_random_graphs_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    reached = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        program = random_program(rng)
        arrays = [rng.normal(size=s) for s in ((4, 4), (4, 4), (4, 4), (4,), (4, 1), ())]
        arrays = [np.asarray(a) for a in arrays]
        ours = [Variable(a) for a in arrays]
        theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
        value, expected = run(program, ours, 0), run(program, theirs, 1)
        np.testing.assert_allclose(value.value, expected.detach(), 1e-10)
        if not value.requires_grad:
            continue
        value.backward()
        expected.backward()
        for leaf, tensor in zip(ours, theirs, strict=True):
            if tensor.grad is None:
                assert leaf.grad is None
            else:
                reached += 1
                np.testing.assert_allclose(
                    leaf.grad, tensor.grad, 1e-10, 1e-10, err_msg=f"seed {seed}"
                )
    assert reached > 600, "most leaves have to be used"


# --- the order of a sum, and what float32 stays ------------------------------------------


def test_gradients_add_up_from_the_last_use_to_the_first():
    """In float32, (1e8 - 1e8) + 1 is 1, and (1 - 1e8) + 1e8 is 0."""
    for uses, expected in (((1.0, -1e8, 1e8), 1.0), ((1e8, -1e8, 1.0), 0.0)):
        x = Variable(np.float32(1))
        first, second, third = (x * use for use in uses)
        (third + first + second).backward()
        assert x.grad == expected


def test_float32_stays():
    x = Variable(np.ones((2, 3), np.float32))
    y = ((2 * x - 1) ** 2 / 3 + exp(x) * log(x)).mean(axis=0)
    loss = y.max() + softmax_cross_entropy(x, np.array([0, 2]))
    assert y.dtype == loss.dtype == np.float32
    loss.backward()
    assert x.grad.dtype == y.grad.dtype == np.float32


# --- once, and then again -----------------------------------------------------------------


def test_a_second_backward_is_refused():
    x = Variable(3.0)
    f = x * x
    f.backward()
    with pytest.raises(
        RuntimeError, match=r"an earlier backward took Variable\(9.0\), made by mul"
    ):
        f.backward()
    assert x.grad == 6


def test_with_retain_graph_a_second_backward_gives_the_same():
    x, y = variables(3, 4)
    f = x * x * y
    for _ in range(3):
        f.backward(retain_graph=True)
        assert grads(x, y) == [24, 9]
    f.backward(10)
    assert grads(x, y) == [240, 90]


def test_two_losses_of_one_trunk():
    x = Variable(3.0)
    trunk = x * x
    first, second = trunk * 2, trunk * 5
    first.backward()
    with pytest.raises(RuntimeError, match="call backward on their sum"):
        second.backward()
    assert x.grad == 12 and second.grad is None, "nothing has changed"
    trunk = x * x
    (trunk * 2 + trunk * 5).backward()
    assert x.grad == 42


def test_a_gradient_replaces_that_of_the_last_graph():
    x = Variable(3.0)
    for factor in (2.0, 5.0):
        (x * factor).backward()
        assert x.grad == factor


# --- what does not change ----------------------------------------------------------------


@pytest.mark.parametrize("function", [exp, lambda x: x * 2, lambda x: x.reshape(2)])
def test_an_array_that_changes_after_its_use_is_found(function):
    a = np.array([1.0, 2.0])
    x = Variable(a, name="x")
    loss = (function(x) ** 2).sum()
    a[:] = a[::-1].copy()
    with pytest.raises(
        RuntimeError, match=r"x'\) was changed in place after .* used it as a"
    ):
        loss.backward()
    assert x.grad is None
    a[:] = a[::-1].copy()
    loss.backward()
    assert x.grad is not None


def test_a_constant_that_changes_is_found():
    x, c = Variable(np.ones(2)), np.array([1.0, 2.0])
    loss = (x * c).sum()
    c[0] = 5
    with pytest.raises(RuntimeError, match="changed in place after mul used it as b"):
        loss.backward()


def test_an_index_that_changes_does_not_matter():
    x, index = Variable(np.arange(3.0)), np.array([0, 0])
    y = x[index].sum()
    index[:] = 2
    y.backward()
    assert x.grad.tolist() == [2, 0, 0]


def test_values_and_gradients_may_only_be_read():
    x = Variable(np.ones(2))
    y = x * 2
    y.sum().backward(retain_graph=True)
    for array in (x.value, y.value, x.grad, y.edges[0].grad):
        with pytest.raises(ValueError, match="read-only"):
            array += 1


def test_an_array_may_change_between_one_graph_and_the_next():
    """As weights do: the leaf sees it."""
    w = np.array([4.0])
    leaf = Variable(w)
    for expected in (4.0, 3.2, 2.56):
        assert leaf.value == pytest.approx(expected)
        (leaf**2).backward()
        w -= 0.1 * leaf.grad


# --- constants ----------------------------------------------------------------------------


def test_labels_get_no_gradient():
    s, t = Variable(np.zeros((2, 3))), Variable(np.array([0, 2]))
    softmax_cross_entropy(s, t).backward()
    assert t.grad is None
    np.testing.assert_allclose(s.grad * 6, [[-2, 1, 1], [1, 1, -2]])
    with pytest.raises(TypeError, match="only floats have gradients"):
        Variable(np.array([0, 2]), requires_grad=True)


def test_constants_get_none_and_pass_none():
    x, c = Variable(2.0), Variable(3.0, requires_grad=False)
    d = (x * 5).detach()
    (x * c + d * x + np.array(7.0)).backward()
    assert x.grad == 3 + 10 and c.grad is None and d.grad is None
    assert not (c * 2).requires_grad and (c * 2).edges == ()
    with pytest.raises(RuntimeError, match="depends on nothing that gets a gradient"):
        (c * 2).backward()


def test_a_leaf_is_its_own_gradient():
    x = Variable(2.0)
    x.backward()
    assert x.grad == 1


# --- how deep and how long ----------------------------------------------------------------


def test_a_chain_of_10_000_operations():
    x = y = Variable(1.0)
    for _ in range(10_000):
        y = y + 1
    y.backward()
    assert y.value == 10_001 and x.grad == 1
    for _ in range(10_000):  # and one that nobody goes back through
        y = y + x
    del y


def test_a_ladder_of_forks_is_climbed_once():
    """2^100 ways lead from one end to the other."""
    x = y = Variable(1.0)
    for _ in range(100):
        y = (y + y) / 2
    y.backward()
    assert x.grad == 1


@pytest.mark.parametrize("used", [True, False])
def test_memory_is_free_without_the_collector(used):
    """After backward even while the result is held; and when the result goes."""
    gc.collect()
    gc.disable()
    try:
        x = Variable(np.ones(3))
        hidden = x * 2
        loss = (exp(hidden) * hidden).sum()
        kept = weakref.ref(hidden), weakref.ref(hidden._array)
        del hidden
        assert kept[0]() is not None
        if used:
            loss.backward()
        else:
            del loss
        assert [k() for k in kept] == [None, None]
    finally:
        gc.enable()


# --- what cannot be ----------------------------------------------------------------------

X = Variable(np.ones((2, 3)), name="x")
SINGLE = Variable(np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    "refuse, error, says",
    [
        (lambda: X + np.ones((2, 2)), ValueError, r"add: .*\(2,3\) \(2,2\)"),
        (
            lambda: X + SINGLE,
            TypeError,
            "add: b is float32 but the other arrays are float64",
        ),
        (lambda: X * np.array([1, 2, 3]), TypeError, "mul: b has dtype int64"),
        (lambda: X @ X, ValueError, r"a has shape \(2, 3\) and b has shape \(2, 3\)"),
        (lambda: X @ 2, ValueError, r"matmul: .* b has shape \(\)"),
        (lambda: X.reshape(4), ValueError, "size 6 into shape"),
        (lambda: X[5], IndexError, "out of bounds"),
        (lambda: X**X, TypeError, r"it must be a number: exp\(n \* log\(x\)\)"),
        (lambda: X.backward(), ValueError, r"'x'\) is not one number: sum\(\) it"),
        (
            lambda: X.backward(np.ones(3)),
            ValueError,
            r"dy has shape \(3,\); .* is \(2, 3\)",
        ),
        (
            lambda: residual_sum(X, X[0]),
            ValueError,
            r"residual_sum: b .* \(3,\); .* \(2, 3\)",
        ),
        (lambda: Variable(X), TypeError, "is a Variable"),
        (lambda: Variable("3"), TypeError, "dtype <U1"),
        (lambda: Variable(1j), TypeError, "complex128"),
        (lambda: np.exp(X), TypeError, "does not support ufuncs"),
        (lambda: list(X), TypeError, "not iterable"),
        (lambda: float(X), TypeError, "Variable"),
    ],
)
def test_what_cannot_be_is_refused(refuse, error, says):
    with pytest.raises(error, match=says):
        refuse()


@pytest.mark.parametrize(
    "sent, says",
    [
        (np.ones(2), r"bad sent back \(2,\) float64 as the gradient of x, which is \(3,\)"),
        (
            np.ones(3, np.float32),
            r"bad sent back \(3,\) float32 .* which is \(3,\) float64",
        ),
        (None, "bad sent back"),
    ],
)
def test_a_gradient_that_does_not_fit_its_edge_is_refused(sent, says):
    x = Variable(np.ones(3))
    y = record("bad", x.value * 2, {"x": x}, lambda dy: {"x": sent})
    with pytest.raises(ValueError, match=says):
        y.backward(np.ones(3))
    assert x.grad is None and y.grad is None
