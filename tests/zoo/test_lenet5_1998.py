"""course/zoo/lenet5_1998.py: table I, the bitmaps, its three layers, and that it learns."""

import numpy as np
import pytest

from course.checks import check_layer
from course.data import load
from course.layers import conv2d_forward
from course.losses import softmax_cross_entropy
from course.optimizers import SGD
from course.training import evaluate, fit
from course.zoo import lenet5_1998
from course.zoo.lenet5_1998 import (
    ChosenConv2d,
    Distance,
    ScaledTanh,
    bitmaps,
    connections,
)

# Table I of the paper in its own words: the channels that each filter of C3 sees. "The
# first six take inputs from every contiguous subset of three feature maps, the next six
# from every contiguous subset of four, the next three from some discontinuous subsets of
# four, the last one from all."
THREE = [{k % 6, (k + 1) % 6, (k + 2) % 6} for k in range(6)]
FOUR = [{k % 6, (k + 1) % 6, (k + 2) % 6, (k + 3) % 6} for k in range(6)]
APART = [{0, 1, 3, 4}, {1, 2, 4, 5}, {0, 2, 3, 5}]
SEEN = [*THREE, *FOUR, *APART, set(range(6))]


def test_sixty_thousand_numbers_are_learned():
    """The paper: 156, 12, 1 516, 32, 48 120 and 10 164."""
    network = lenet5_1998()
    sizes = [
        sum(array.size for array in layer.params.values())
        for layer in network
        if layer.params
    ]
    assert sizes == [156, 12, 1516, 32, 48120, 10164]
    assert sum(sizes) == 60_000


def test_connections_are_those_of_table_1():
    table = connections()
    assert table.shape == (16, 6)
    assert [set(np.flatnonzero(row).tolist()) for row in table] == SEEN
    assert table.sum() == 60  # 60 windows of 25, and 16 biases: 1 516
    assert table.sum(axis=0).tolist() == [10] * 6  # no channel is preferred


def test_connections_that_are_not_there_change_nothing(rng):
    """Each filter alone, from its own channels, is what the layer computes."""
    layer = ChosenConv2d(connections(), 5, rng=rng, dtype=np.float64)
    layer.params["bias"][:] = rng.normal(size=16)
    x, k = rng.normal(size=(2, 6, 14, 14)), 0
    y = layer(x)
    for f, channels in enumerate(map(sorted, SEEN)):
        w = layer.params["weight"][k : k + len(channels)][None]
        k += len(channels)
        alone = conv2d_forward(x[:, channels], w) + layer.params["bias"][f]
        np.testing.assert_allclose(y[:, f], alone[:, 0], 1e-12, 1e-12)


def test_weights_vary_as_the_filter_sees_channels():
    """Standard deviation sqrt(2 / taps): with 75, 100 or 150 taps a filter."""
    table = np.repeat(np.eye(2, 4, dtype=bool) | [[1, 1, 1, 1], [0, 1, 0, 0]], 300, axis=0)
    layer = ChosenConv2d(table, 5, rng=np.random.default_rng(0))
    many, one = np.split(layer.params["weight"], [300 * 4])
    np.testing.assert_allclose(many.std(), np.sqrt(2 / 100), 0.02)
    np.testing.assert_allclose(one.std(), np.sqrt(2 / 25), 0.02)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda rng: ScaledTanh(), (3, 2, 4)),
        (
            lambda rng: ChosenConv2d(np.eye(3, dtype=bool), 2, rng=rng, dtype=np.float64),
            (2, 3, 4, 5),
        ),
        (
            lambda rng: Distance(rng.normal(size=(5, 7)), dtype=np.float64),
            (3, 7),
        ),
    ],
)
def test_backward_of_its_own_layers_is_the_slope(layer, shape, rng):
    check_layer(layer(rng), rng.normal(size=shape), rng)


def test_squashing_gives_one_for_one():
    """Appendix A: f(1) = 1, f(-1) = -1, and it never goes beyond 1.7159."""
    y = ScaledTanh()(np.array([-1e9, -1.0, 0.0, 1.0, 1e9]))
    np.testing.assert_allclose(y, [-1.7159, -1, 0, 1, 1.7159], 1e-4)
    x = np.float32([0.3, -2])
    assert ScaledTanh()(x).dtype == np.float32
    np.testing.assert_allclose(ScaledTanh()(x), 1.7159 * np.tanh(x * 2 / 3), 1e-6)


def test_scores_are_minus_the_squared_distance(rng):
    templates, x = rng.normal(size=(4, 6)), rng.normal(size=(3, 6))
    expected = [[-(np.linalg.norm(a - b) ** 2) for b in templates] for a in x]
    found = Distance(templates, dtype=np.float64)(x)
    np.testing.assert_allclose(found, expected, 1e-12)


def test_bitmaps_are_ten_different_digits():
    digits = bitmaps()
    assert digits.shape == (10, 84) and set(np.unique(digits)) == {-1, 1}
    apart = (digits[:, None] != digits[None]).sum(axis=2)
    assert apart[~np.eye(10, dtype=bool)].min() >= 3  # pixels: an 8 is nearly a 0
    seven = digits[7].reshape(12, 7)
    assert (seven[0] == 1).all() and (seven[11] == 1).sum() == 2  # drawn upright


def test_bitmaps_are_saved_and_never_learned(rng):
    network = lenet5_1998()
    assert "output.templates" in network.state_dict()
    assert not [key for key in network.params if key.startswith("output")]
    x = rng.normal(size=(4, 1, 28, 28)).astype(np.float32)
    _, dscores = softmax_cross_entropy(network(x), np.arange(4))
    network.learn(dscores)
    SGD(0.1).step(network)
    np.testing.assert_array_equal(network.state_dict()["output.templates"], bitmaps())


def test_other_classes_have_drawn_bitmaps():
    templates = lenet5_1998(26).state_dict()["output.templates"]
    assert templates.shape == (26, 84) and set(np.unique(templates)) == {-1, 1}


def test_ten_images_can_be_learned_by_heart(rng):
    x, t = rng.normal(size=(10, 1, 28, 28)).astype(np.float32), np.arange(10)
    history = fit(
        lenet5_1998(), x, t, epochs=40, batch_size=10, optimizer=SGD(0.001, 0.9),
        seed=0, progress=False,
    )  # fmt: skip
    assert history.train_loss[-1] < 0.01


def test_it_learns_digits():
    """Two epochs of scikit-learn's digits, and nine of ten new ones are read."""
    data = load("digits")
    network = lenet5_1998()
    fit(
        network, data.x_train, data.t_train, epochs=2, batch_size=32,
        optimizer=SGD(0.001, 0.9), seed=0, progress=False,
    )  # fmt: skip
    assert evaluate(network, data.x_test, data.t_test).accuracy > 0.9


def test_it_is_pytorch_s_with_zeros_where_nothing_is_connected(rng):
    """Scores and every gradient, in float64, against the definition in PyTorch."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    F = torch.nn.functional
    mine = lenet5_1998(dtype=np.float64)
    p = {key: torch.tensor(a, requires_grad=True) for key, a in mine.params.items()}
    full = torch.zeros(16, 6, 5, 5, dtype=torch.float64)
    full = full.masked_scatter(
        torch.tensor(connections())[:, :, None, None].expand(-1, -1, 5, 5), p["c3.weight"]
    )

    def squash(a):
        return 1.7159 * torch.tanh(2 / 3 * a)

    def subsample(a, name):
        w, b = p[f"{name}.weight"], p[f"{name}.bias"]
        return 4 * F.avg_pool2d(a, 2) * w[:, None, None] + b[:, None, None]

    x, t = rng.normal(size=(5, 1, 28, 28)), rng.integers(10, size=5)
    a = squash(F.conv2d(torch.tensor(x), p["c1.weight"], p["c1.bias"], padding=2))
    a = squash(F.conv2d(squash(subsample(a, "s2")), full, p["c3.bias"]))
    a = squash(F.conv2d(squash(subsample(a, "s4")), p["c5.weight"], p["c5.bias"]))
    a = squash(F.linear(a.flatten(1), p["f6.weight"], p["f6.bias"]))
    scores = -((a[:, None] - torch.tensor(bitmaps())) ** 2).sum(2)
    found = mine(x)
    np.testing.assert_allclose(found, scores.detach(), 1e-10)
    expected = F.cross_entropy(scores, torch.tensor(t))
    expected.backward()
    loss, dscores = softmax_cross_entropy(found, t)
    mine.backward(dscores)
    np.testing.assert_allclose(loss, expected.item(), 1e-10)
    for name, parameter in p.items():
        np.testing.assert_allclose(
            mine.grads[name], parameter.grad, 1e-8, 1e-12, err_msg=name
        )
