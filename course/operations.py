"""Operations of the graph: every function of course.layers and course.losses, and layers.

No derivative is written here. Each pair of course.layers, such as `conv2d_forward` and
`conv2d_backward`, is an operation, `conv2d`, with the arguments of the forward; what the
backward needs, its own arguments say by their names. So is each function of course.losses,
which computes its gradient at once. `layer` is the operation of a layer, or of a network.

>>> x = Variable(np.array([[1.0, -2.0]]))
>>> loss = softmax_cross_entropy(relu(x), np.array([0]))
>>> loss.backward()
>>> x.grad.round(3)
array([[-0.269,  0.   ]])
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np

import course.layers
import course.losses
from course.device import Array
from course.fused import Fused
from course.graph import Gradients, Variable, as_variable, named, record
from course.layers import concat_backward, concat_forward
from course.layers.base import Layer

LEARNED = "x", "a", "w", "weight", "b", "bias"  # arguments of which there are gradients


def _operation(
    name: str, forward: Callable, backward: Callable, learned: Sequence[str]
) -> Callable[..., Variable]:
    """Return the operation of a pure forward and its backward.

    The backward asks by name: for arguments of forward; y; input_shape, that of x; need_dx;
    and, under other names, for what forward returns after y. It returns the gradients of
    the arguments in `learned`, in this order.
    """
    signature, asked = inspect.signature(forward), inspect.signature(backward).parameters

    def operation(*arguments: Any, **keywords: Any) -> Variable:
        inputs = {}
        with named(name):
            call = signature.bind(*arguments, **keywords)
            call.apply_defaults()
            known = call.arguments
            for key, value in known.items():
                if isinstance(value, Variable) or (key in learned and value is not None):
                    inputs[key] = as_variable(value)
                    known[key] = inputs[key]._array
                    if inputs[key].requires_grad and key not in learned:
                        raise TypeError(f"{key} gets no gradient here: {key}.detach()")
            result = forward(**known)
        y, *more = result if isinstance(result, tuple) else (result,)
        x = inputs[learned[0]]
        known |= {"dy": None, "y": y, "input_shape": x.shape, "need_dx": x.requires_grad}
        known |= zip([key for key in asked if key not in known], more, strict=True)
        kept = {key: known[key] for key in asked if key != "dy"}

        def back(dy: Array) -> Gradients:
            found = backward(dy, **kept)
            found = found if isinstance(found, tuple) else (found,)
            return dict(zip(learned, found, strict=True))

        return record(name, np.asarray(y, x.dtype), inputs, back)

    operation.__name__ = operation.__qualname__ = name
    operation.__signature__ = signature.replace(return_annotation=Variable)
    operation.__doc__ = f"Return what `{forward.__name__}` returns first, as a Variable."
    return operation


def _of_pair(name: str) -> Callable[..., Variable]:
    """Return the operation of a pair of course.layers."""
    forward = getattr(course.layers, f"{name}_forward")
    learned = [key for key in inspect.signature(forward).parameters if key in LEARNED]
    return _operation(name, forward, getattr(course.layers, f"{name}_backward"), learned)


def _of_loss(name: str) -> Callable[..., Variable]:
    """Return the operation of a loss, which computes its gradient at once."""
    loss = getattr(course.losses, name)
    first = next(iter(inspect.signature(loss).parameters))
    return _operation(name, loss, lambda dy, gradient: dy * gradient, [first])


def concat(arrays: Sequence[Any], axis: int = 1) -> Variable:
    """Return what `concat_forward` returns, as a Variable."""
    inputs = {f"x[{k}]": as_variable(a) for k, a in enumerate(arrays)}
    with named("concat"):
        y = concat_forward([v._array for v in inputs.values()], axis)
    sizes = [v.shape[axis] for v in inputs.values()]

    def back(dy: Array) -> Gradients:
        parts = concat_backward(dy, sizes, axis)
        return dict(zip(inputs, parts, strict=True))

    return record("concat", y, inputs, back)


_pairs = {k.removesuffix("_forward") for k in course.layers.__all__ if "_forward" in k}
OPERATIONS = {name: _of_pair(name) for name in sorted(_pairs - {"concat"})}
OPERATIONS |= {
    name: _of_loss(name) for name in course.losses.__all__ if name not in OPERATIONS
}
OPERATIONS["concat"] = concat
globals().update(OPERATIONS)  # from course.operations import conv2d


# --- layers and networks ----------------------------------------------------------------

_parameters: WeakKeyDictionary[Layer, dict] = WeakKeyDictionary()


def layer(layer: Layer, *inputs: Any) -> Variable:
    """Return what a layer, or a network of layers, makes of its inputs, as a Variable.

    Its parameters are leaves of the graph: backward puts their gradients into the `grads`
    of the layer, where an optimizer looks for them. A layer that is used several times
    gets the sum over its uses. Raises what the layer raises, and ValueError for a network
    with one layer in two places, whose own backward knows the second only.
    """
    kind, leaves = type(layer).__name__, dict(layer.leaves())
    if len({id(leaf) for leaf in leaves.values()}) < len(leaves):
        raise ValueError(f"{kind} has one layer in two places; give its layers one by one")
    names = ["x"] if len(inputs) == 1 else [f"x[{k}]" for k in range(len(inputs))]
    known = dict(zip(names, map(as_variable, inputs), strict=True))
    arrays = tuple(variable._array for variable in known.values())
    with named(kind):
        y = layer.forward(arrays if len(arrays) > 1 else arrays[0])
    parameters = {
        f"{prefix}.{key}".lstrip("."): (leaf, key, array)
        for prefix, leaf in leaves.items()
        for key, array in leaf.params.items()
    }
    known |= {name: _parameter(*found) for name, found in parameters.items()}
    memory, first = _memory(layer), known[names[0]]

    def back(dy: Array) -> Gradients:
        if any(leaf.params[key] is not array for leaf, key, array in parameters.values()):
            raise RuntimeError(f"a parameter of {kind} was replaced after it was used")
        now = _memory(layer)
        _remember(memory)  # it may have run again since
        try:
            if len(names) > 1:
                gradients = dict(zip(names, layer.backward(dy), strict=True))
            elif first.requires_grad:
                gradients = {"x": layer.backward(dy)}
            else:
                gradients = {"x": layer.learn(dy)}
        finally:
            _remember(now)
        return gradients | {name: p[0].grads[p[1]] for name, p in parameters.items()}

    return record(kind, y, known, back)


def _parameter(leaf: Layer, key: str, array: Array) -> Variable:
    """Return a layer's parameter as a leaf of the graph, the same one at every use."""
    known = _parameters.setdefault(leaf, {})
    if key not in known or known[key][0] is not array:
        known[key] = array, Variable(array, name=key)
        known[key][1]._home = _into(ref(leaf), key)
    return known[key][1]


def _into(home: ref[Layer], key: str) -> Callable[[Array], None]:
    """Return what puts a gradient into the layer, as long as there is one."""

    def put(grad: Array) -> None:
        if (layer := home()) is not None:
            layer.grads[key] = grad

    return put


def _memory(layer: Layer) -> list[tuple[Any, dict]]:
    """Return the layer and all inside it that remember a forward, with what they do."""
    found, todo = {}, [layer]
    while todo:
        part = todo.pop()
        if isinstance(part, Layer | Fused) and id(part) not in found:
            found[id(part)] = part, dict(vars(part))
            todo += vars(part).values()
        elif isinstance(part, dict):
            todo += part.values()
        elif isinstance(part, list | tuple):
            todo += part
    return list(found.values())


def _remember(memory: list[tuple[Any, dict]]) -> None:
    """Let layers remember what they did when this was written down."""
    for part, kept in memory:
        vars(part).clear()
        vars(part).update(kept)
