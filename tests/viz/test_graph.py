"""course/viz/graph.py: what stands on the wires, where, and in the text of Mermaid."""

import re
from collections import Counter

import numpy as np
import pytest

from course.graph import Variable, exp
from course.layers import Conv2d
from course.operations import layer, relu, residual_sum
from course.viz.graph import GREEN, ORANGE, _apart, circuit, to_mermaid


def product_of_a_sum():
    x, y, z = (Variable(v, name=n) for v, n in ((-2, "x"), (5, "y"), (-4, "z")))
    f = (x + y) * z
    f.name = "f"
    f.backward(retain_graph=True)
    return f


def block():
    """Return relu(conv(x) + x) of images, after backward."""
    rng = np.random.default_rng(0)
    conv = Conv2d(2, 2, 3, padding=1, bias=False, rng=rng, dtype=np.float64)
    x = Variable(rng.normal(size=(3, 2, 4, 5)), name="x")
    y = relu(residual_sum(layer(conv, x), x))
    y.backward(np.ones(y.shape), retain_graph=True)
    return y, x, conv


def texts(picture, color):
    return [t.get_text() for t in picture.fig.axes[0].texts if t.get_color() == color]


# --- the circuit --------------------------------------------------------------------------


def test_each_wire_has_its_value_above_and_its_gradient_below():
    """The first circuit of cs231n.github.io/optimization-2: its numbers."""
    picture = circuit(product_of_a_sum())
    assert sorted(texts(picture, GREEN)) == sorted(["−2", "5", "−4", "3", "−12"])
    assert sorted(texts(picture, ORANGE)) == sorted(["∂ −4", "∂ −4", "∂ −4", "∂ 3", "∂ 1"])
    assert sorted(texts(picture, "black")) == sorted([*"xyzf", "+", "×"])
    assert picture.alt == (
        "A graph of 3 inputs and 2 operations: f = −12. Gradients: x −4, y −4, z 3."
    )
    above, below = (
        {t.get_text(): t.get_position() for t in picture.fig.axes[0].texts}[name]
        for name in ("−12", "∂ 1")
    )
    assert above[0] == below[0] and above[1] > below[1]


def test_without_gradients_there_are_values_alone():
    f = (Variable(2.0, name="x") + 1) * 4
    picture = circuit(f)
    assert texts(picture, ORANGE) == []
    assert texts(picture, GREEN) == ["2", "3", "12"], "1 and 4 stand for themselves"
    assert picture.alt == "A graph of 3 inputs and 2 operations: out = 12."


def test_where_a_variable_forks_its_parts_and_their_sum():
    x = Variable(3.0, name="x")
    f = x * x + x
    f.backward(retain_graph=True)
    picture = circuit(f)
    shown = texts(picture, ORANGE)
    assert Counter(shown) == {"∂ 3": 2, "∂ 1": 3, "Σ∂ 7": 1}
    curves = [tuple(map(tuple, p.get_path().vertices)) for p in picture.fig.axes[0].patches]
    assert len(set(curves)) == len(curves) == 5, "x goes to × on two ways"


def test_arrays_have_their_shape_and_the_norm_of_their_gradient():
    y, x, conv = block()
    picture = circuit(y)
    assert Counter(texts(picture, GREEN)) == {"3×2×4×5": 5, "2×2×3×3": 1}
    norm = np.linalg.norm(conv.grads["weight"])
    assert f"‖∂‖ {norm:.3g}" in texts(picture, ORANGE)
    assert f"x norm {np.linalg.norm(x.grad):.3g}" in picture.alt


def places(picture):
    return {t.get_text(): t.get_position() for t in picture.fig.axes[0].texts}


def test_wires_go_to_the_right_and_nothing_overlaps():
    w0, x0, w1, x1, w2 = (Variable(k - 2.5, name=f"n{k}") for k in range(5))
    f = 1 / (1 + exp(-(w0 * x0 + w1 * x1 + w2)))
    f.backward(retain_graph=True)
    picture = circuit(f)
    (axes,) = picture.fig.axes
    for patch in axes.patches:
        assert (np.diff(patch.get_path().vertices[:, 0]) >= 0).all()
    picture.fig.draw_without_rendering()
    boxes = [t.get_window_extent() for t in axes.texts if t.get_color() == "black"]
    frame = picture.fig.bbox
    for k, box in enumerate(boxes):
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1
        assert not any(box.overlaps(other) for other in boxes[:k])


def test_a_skip_connection_passes_beside_the_layers():
    y, _, _ = block()
    picture = circuit(y)
    found = places(picture)
    (long,) = (p for p in picture.fig.axes[0].patches if len(p.get_path().vertices) == 7)
    _, over = long.get_path().vertices[3]
    assert abs(over - found["Conv2d"][1]) > 0.5


def test_an_input_stands_just_left_of_its_first_use():
    found = places(circuit(product_of_a_sum()))
    assert found["x"][0] == found["y"][0] < found["+"][0] == found["z"][0] < found["×"][0]


def test_rows_move_as_little_as_they_can():
    """Least squares: two that want one place stand half a row above and below it."""
    rows = _apart(["a", "b", "c"], {"a": 0.0, "b": 0.0, "c": -5.0})
    assert rows == {"a": 0.5, "b": -0.5, "c": -5.0}


def test_what_backward_took_apart_cannot_be_drawn():
    f = Variable(2.0) * 3
    f.backward()
    for draw in (circuit, to_mermaid):
        with pytest.raises(ValueError, match=r"backward\(retain_graph=True\)"):
            draw(f)


def test_a_leaf_alone_can_be_drawn():
    assert circuit(Variable(2.0, name="x")).alt == (
        "A graph of 1 input and 0 operations: x = 2."
    )


# --- Mermaid ------------------------------------------------------------------------------

LABEL = r'"(?:[^"<>&#`\\\n]|#\d+;|<br/>)*"'  # quoted, with nothing that Mermaid reads
LINE = re.compile(
    rf"    (?:(?P<id>\w+)(?:\(\[{LABEL}\]\)|\[{LABEL}\])"
    rf"|(?P<source>\w+) -->(?:\|{LABEL}\|)? (?P<target>\w+))"
)


def parsed(text):
    """Return the nodes and the arrows of a flowchart, and insist on its grammar."""
    head, *lines = text.split("\n")
    assert head == "flowchart LR"
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), lines[matches.index(None)]
    nodes = [m["id"] for m in matches if m["id"]]
    arrows = [(m["source"], m["target"]) for m in matches if not m["id"]]
    assert len(set(nodes)) == len(nodes)
    assert {end for arrow in arrows for end in arrow} == set(nodes)
    return nodes, arrows


def test_mermaid_has_each_node_once_and_each_use():
    text = to_mermaid(product_of_a_sum())
    nodes, arrows = parsed(text)
    assert len(nodes) == 6 and len(arrows) == 5
    assert 'n3 -->|"3<br/>∂ −4"| n4' in text
    nodes, arrows = parsed(to_mermaid(block()[0]))
    assert len(nodes) == 6 and len(arrows) == 6


def test_mermaid_shows_values_and_shapes():
    text = to_mermaid(block()[0])
    assert '(["x<br/>Σ‖∂‖' in text and '["Conv2d"]' in text and '|"2×2×3×3<br/>‖∂‖' in text


@pytest.mark.parametrize(
    "name",
    [
        '"',
        "a|b",
        "<script>",
        "#quot;",
        "end",
        "`x`",
        "]) --> n0",
        "a\nb",
        "%%",
        "{}",
        "&amp;",
    ],
)
def test_no_name_breaks_mermaid(name):
    f = Variable(2.0, name=name) * Variable(1.0, name="subgraph")
    f.name = name
    text = to_mermaid(f)
    nodes, _ = parsed(text)
    assert nodes == ["n0", "n1", "n2", "out"]
    title = re.search(r'n0\(\["(.*)"\]\)', text)[1]
    assert re.sub(r"#(\d+);", lambda m: chr(int(m[1])), title) == name


def test_a_notebook_gets_mermaid_and_text():
    text = to_mermaid(product_of_a_sum())
    assert isinstance(text, str)
    assert text._repr_mimebundle_() == {"text/vnd.mermaid": text, "text/plain": text}
