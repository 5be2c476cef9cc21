"""course/reproduce.py: the record of results can be made again."""

import json

import numpy as np
import pytest

from course import recipes, reproduce
from course.cli import main
from course.data import load
from course.optimizers import SGD
from course.schedules import one_cycle
from course.vision.augmentation import Shift
from course.zoo import lenet5


def digits():
    data = load("digits")
    return data.x_train[:640], data.t_train[:640], data.x_test, data.t_test


@pytest.fixture
def small(monkeypatch):
    """A recipe that takes seconds, under the name of one that takes minutes."""
    recipe = recipes.Recipe(
        title="LeNet-5 on digits",
        text="A few images.",
        data=digits,
        network=lambda rng: lenet5(rng=rng),
        optimizer=lambda: SGD(0.1, momentum=0.9, weight_decay=1e-3),
        theirs=lambda optim, groups: optim.SGD(groups, 0.1, momentum=0.9),
        weight_decay=1e-3,
        epochs=2,
        batch_size=32,
        schedule=one_cycle(),
        augment=Shift(1),
        bars={"test accuracy": 0.3, "seconds": 600},
    )
    monkeypatch.setitem(recipes.RECIPES, "lenet5-mnist", recipe)
    return recipe


def test_every_name_has_its_recipe():
    assert tuple(recipes.RECIPES) == reproduce.NAMES


def test_result_picture_and_page_are_written(small, tmp_path, capsys):
    out = tmp_path / "results"
    assert main(["reproduce", "lenet5-mnist", "--alone", "--out", str(out)]) == 0
    result = json.loads((out / "lenet5-mnist-seed0.json").read_text())
    assert result["parameters"] == 61_706
    assert result["images"] == 640
    assert result["ours"]["test accuracy"] > 0.3
    assert len(result["ours"]["seconds per epoch"]) == 2
    assert (out / "lenet5-mnist-seed0.png").read_bytes()[:4] == b"\x89PNG"
    page = tmp_path.joinpath("results.md").read_text()
    assert f"| {result['ours']['test accuracy']:.2%} | not run |" in page
    assert "results/lenet5-mnist-seed0.png" in page
    assert "all that is demanded is met" in capsys.readouterr().out


def test_a_bar_that_is_missed_is_said(small, tmp_path, monkeypatch, capsys):
    small.bars["test accuracy"] = 1.01
    out = tmp_path / "results"
    assert main(["reproduce", "lenet5-mnist", "--alone", "--out", str(out)]) == 1
    assert "demanded 1.01" in capsys.readouterr().out
    assert "**not met**" in tmp_path.joinpath("results.md").read_text()


def test_other_epochs_are_not_held_to_the_bars(small):
    result, _ = reproduce.reproduce("lenet5-mnist", epochs=1, beside=False)
    assert result["bars"] == {} and result["epochs"] == 1


def test_same_seed_same_losses(small):
    first, again, other = (
        reproduce.reproduce("lenet5-mnist", seed, 1, beside=False)[0]["loss"]
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_pytorch_walks_the_same_way(small):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    result, picture = reproduce.reproduce("lenet5-mnist", epochs=1)
    np.testing.assert_allclose(result["loss"], result["pytorch loss"], rtol=1e-3)
    assert "PyTorch ends at a loss of" in picture.alt


@pytest.mark.parametrize("name", reproduce.NAMES)
def test_networks_are_those_of_pytorch(name, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from course.bench.twin import twin

    model = recipes.RECIPES[name].network(rng)
    shape = (4, 3, 32, 32) if "cifar" in name else (4, 1, 28, 28)
    x = rng.normal(size=shape).astype(np.float32)
    theirs = twin(model)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(
        model(x), theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max()
    )


def test_a_layer_without_a_twin_is_named(rng):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from course.bench.twin import twin
    from course.layers import Maxout

    with pytest.raises(TypeError, match="Maxout"):
        twin(Maxout(4, 2, 2, rng=rng))


def test_a_name_that_is_not_there(capsys):
    with pytest.raises(ValueError, match="there is no result 'alexnet'; there are lenet5"):
        reproduce.reproduce("alexnet")
