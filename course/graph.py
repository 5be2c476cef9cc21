"""Automatic differentiation in reverse mode: a graph that is written while it computes.

An operation on Variables computes its value at once, and notes on the result what it was
given and how a gradient goes back. `backward` starts at one result, goes from the last
operation that led to it to the first, and computes for each variable x

    dLoss/dx = sum, over the uses of x in an operation y = f(..., x, ...),
               of (dy/dx)^T dLoss/dy

Each operation is visited once, however many ways lead through it. The sum is added from
the last use of x to the first: the same order in every run, so the same bits.

Here are the graph and arithmetic. course.operations has an operation for each function of
course.layers and course.losses, and lets whole layers and networks stand in a graph;
course.viz.graph draws it.

Source: Linnainmaa, BIT 16 (1976); Wengert, CACM 7 (1964). Names are torch.autograd's.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from numbers import Real
from typing import Any

import numpy as np

from course.cuda import CudaArray
from course.device import Array, floats, same_shape
from course.layers import linear_backward, linear_forward

Gradients = dict[str, Array | None]  # dLoss/dargument, under the argument's name
_serial = count()


@dataclass(slots=True, eq=False)
class Edge:
    """One use of a variable: as which argument, and the gradient that came back for it.

    `checksum` is that of a leaf's array when it was used: others may write on it.
    """

    argument: str
    variable: "Variable"
    checksum: int | None
    grad: Array | None = None


def _operator(name: str, swapped: bool = False) -> Callable[..., "Variable"]:
    """Return a method of Variable: the operation of ARITHMETIC with this name."""
    order = -1 if swapped else 1
    return lambda *operands: _elementwise(name, *operands[::order])


class Variable:
    """An array in a graph.

    A leaf is made from an array, which is not copied, or from numbers; all else is made by
    operations. Whole numbers, as labels are, get no gradient (one Python number does), nor
    does a leaf with requires_grad=False, nor an array that an operation is given as it is.
    Raises TypeError for a dtype that is not float32, float64 or whole.

    Attributes
    ----------
    value, grad : the array and, after backward, dLoss/dvalue; both may only be read
    operation : the name of what computed it, "" for a leaf
    edges : what that was given, one Edge for each argument
    number : counts all Variables, in the order in which they were made

    >>> x, y, z = Variable(-2), Variable(5), Variable(-4)
    >>> f = (x + y) * z
    >>> f.backward()
    >>> f, x.grad, y.grad, z.grad
    (Variable(-12.0), array(-4.), array(-4.), array(3.))
    """

    __slots__ = (
        *("_array", "_back", "_home", "number", "__weakref__"),
        *("edges", "grad", "name", "operation", "requires_grad"),
    )
    __array_ufunc__ = None  # array + Variable is ours, not NumPy's
    __iter__ = None
    __add__ = __radd__ = _operator("add")
    __mul__ = __rmul__ = _operator("mul")
    __sub__, __rsub__ = _operator("sub"), _operator("sub", swapped=True)
    __truediv__, __rtruediv__ = _operator("div"), _operator("div", swapped=True)
    __neg__ = _operator("neg")

    def __init__(self, value: Any, *, requires_grad: bool | None = None, name: str = ""):
        if isinstance(value, Variable):
            raise TypeError("value is a Variable already; its value is the array")
        if isinstance(value, CudaArray):
            raise TypeError(
                "value is on cuda; a graph computes on the CPU: course.device.host(value)"
            )
        array = np.asarray(float(value) if isinstance(value, int) else value)
        whole = array.dtype.kind in "biu"
        if not whole:
            floats("value", array, "any")
        elif requires_grad:
            raise TypeError(f"value has dtype {array.dtype}; only floats have gradients")
        # loops are compiled for arrays that may be written on
        self._array = array if array.flags.writeable else array.copy()
        self.requires_grad = not whole if requires_grad is None else bool(requires_grad)
        self.name, self.operation, self.edges = name, "", ()
        self.grad, self._back, self._home = None, None, None
        self.number = next(_serial)

    @property
    def value(self) -> Array:
        """Return the array; writing on it is an error."""
        return _locked(self._array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the value, which is that of the gradient."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype:
        """Return the dtype of the value, which is that of the gradient."""
        return self._array.dtype

    def __repr__(self) -> str:
        shown = self._array.item() if self.shape == () else f"{self.shape} {self.dtype}"
        return f"Variable({shown}{self.name and f', name={self.name!r}'})"

    def detach(self) -> "Variable":
        """Return the value as a constant, through which no gradient passes."""
        return Variable(self._array, requires_grad=False, name=self.name)

    def backward(self, dy: Any = None, *, retain_graph: bool = False) -> None:
        """Compute the gradient of this result with respect to all that led to it.

        `dy` is the gradient of this result itself: 1 if it is a single number. Every grad
        that is reached is replaced, not added to, and a layer's `grads` with it. For two
        losses call backward on their sum.

        Afterwards the graph is taken apart and its memory is free; with retain_graph it
        stays, to be drawn, or for another backward. Raises RuntimeError if an earlier
        backward took a part of the graph, or if an array was changed after its use, and
        ValueError for a dy of another shape; then no grad has changed.
        """
        if dy is None and self._array.size != 1:
            raise ValueError(
                f"{self} is not one number: sum() it, or give dy, of its shape"
            )
        dy = np.ones_like(self._array) if dy is None else np.array(dy, self.dtype)
        same_shape("dy", dy, self.shape, f"the shape of {self}")
        nodes, grads, uses = self._history(), {self: dy}, []
        for node in nodes:
            back = node._back(grads[node]) if node._back else {}
            for edge in node.edges:
                if edge.variable.requires_grad:
                    more = _arrived(node, edge, back.get(edge.argument))
                    there = grads.get(edge.variable)
                    total = more if there is None else np.asarray(there + more)
                    grads[edge.variable] = total
                    uses.append((edge, more))
        for edge, grad in uses:
            edge.grad = _locked(grad)
        for node, grad in grads.items():
            node.grad = _locked(grad)
            if node._home is not None:
                node._home(grad)
        if not retain_graph:
            for node in nodes:
                node._back, node.edges = None, ()

    def _history(self) -> list["Variable"]:
        """Return all that gets a gradient, newest first, if the graph is as it was."""
        if not self.requires_grad:
            raise RuntimeError(f"{self} depends on nothing that gets a gradient")
        found, todo, sums = {self}, [self], {}
        while todo:
            node = todo.pop()
            if node.operation and node._back is None:
                raise RuntimeError(
                    f"an earlier backward took {node}, made by {node.operation}, out of "
                    "the graph: compute it again, or say backward(retain_graph=True) "
                    "first; for two losses call backward on their sum"
                )
            for edge in node.edges:
                source = edge.variable
                if edge.checksum is not None:
                    if source not in sums:
                        sums[source] = _checksum(source)
                    if sums[source] != edge.checksum:
                        raise RuntimeError(
                            f"{source} was changed in place after {node.operation} used "
                            f"it as {edge.argument}: change a copy, or compute again"
                        )
                if source.requires_grad and source not in found:
                    found.add(source)
                    todo.append(source)
        return sorted(found, key=lambda node: -node.number)

    def __pow__(self, n: float) -> "Variable":
        if not isinstance(n, Real):
            raise TypeError(f"the exponent is {n!r}; it must be a number: exp(n * log(x))")
        n, a = float(n), self._array
        slope = lambda: n * a ** (n - 1) if n else np.zeros_like(a)  # noqa: E731
        return record(f"pow {n:g}", a**n, {"a": self}, lambda dy: {"a": dy * slope()})

    def __matmul__(self, other: Any) -> "Variable":
        return _matmul(self, other)

    def __rmatmul__(self, other: Any) -> "Variable":
        return _matmul(other, self)

    def __getitem__(self, index: Any) -> "Variable":
        return _picked("getitem", self, self._places()[index])

    def reshape(self, *shape: int) -> "Variable":
        """Return the same numbers, in their order, in another shape."""
        return _picked("reshape", self, self._places().reshape(*shape))

    def transpose(self, *axes: int) -> "Variable":
        """Return the array with its axes in another order, reversed if none is given."""
        return _picked("transpose", self, self._places().transpose(*axes))

    T = property(transpose)

    def max(self, axis: int | None = None) -> "Variable":
        """Return the largest number, or those along an axis; of equals the first."""
        a, places = self._array, self._places()
        if axis is None:
            a, places, axis = a.reshape(-1), places.reshape(-1), 0
        where = np.expand_dims(a.argmax(axis), axis)
        return _picked("max", self, np.take_along_axis(places, where, axis).squeeze(axis))

    def _places(self) -> Array:
        """Return for each number of the value where it stands: 0, 1, ..."""
        return np.arange(self._array.size).reshape(self.shape)

    def sum(self, axis: Any = None, keepdims: bool = False) -> "Variable":
        """Return the sum of all numbers, or those along an axis or several."""
        a = self._array
        total = a.sum(axis, keepdims=True)

        def back(dy: Array) -> Gradients:
            dx = np.empty_like(a)
            dx[...] = dy.reshape(total.shape)
            return {"a": dx}

        y = total if keepdims else a.sum(axis)
        return record("sum", y, {"a": self}, back)

    def mean(self, axis: Any = None, keepdims: bool = False) -> "Variable":
        """Return the mean of all numbers, or those along an axis or several."""
        total = self.sum(axis, keepdims)
        return total / (self._array.size / total._array.size)


def record(
    operation: str,
    value: Array,
    inputs: dict[str, Variable],
    back: Callable[[Array], Gradients],
) -> Variable:
    """Return the value that an operation computed from its inputs, as a Variable.

    `back` returns, from dLoss/dvalue, the gradient of each input under its name. Nobody
    may write on the value afterwards. So any function can stand in a graph:

    >>> x = Variable(3.0)
    >>> y = record("square", x.value**2, {"x": x}, lambda dy: {"x": 2 * x.value * dy})
    >>> y.backward()
    >>> x.grad
    array(6.)
    """
    y = Variable(np.asarray(value), requires_grad=False)
    if any(variable.requires_grad for variable in inputs.values()):
        y.requires_grad, y.operation, y._back = True, operation, back
        y.edges = tuple(
            Edge(name, variable, None if variable.operation else _checksum(variable))
            for name, variable in inputs.items()
        )
    return y


def _checksum(leaf: Variable) -> int:
    """Return a number that changes when the array of the leaf does."""
    return zlib.crc32(np.ascontiguousarray(leaf._array))


def _locked(array: Array) -> Array:
    """Return the same array, not to be written on."""
    view = array.view()
    view.flags.writeable = False
    return view


def _arrived(node: Variable, edge: Edge, gradient: Array | None) -> Array:
    """Return the gradient that a node sent along an edge, if it fits the value there."""
    gradient, value = np.asarray(gradient), edge.variable
    if (gradient.shape, gradient.dtype) != (value.shape, value.dtype):
        raise ValueError(
            f"{node.operation} sent back {gradient.shape} {gradient.dtype} as the gradient "
            f"of {edge.argument}, which is {value.shape} {value.dtype}"
        )
    return gradient


def as_variable(value: Any, dtype: Any = None) -> Variable:
    """Return a Variable as it is, and anything else as a constant."""
    if isinstance(value, Variable):
        return value
    if isinstance(value, Real):
        value = np.asarray(value, dtype)
    return Variable(value, requires_grad=False)


@contextmanager
def named(operation: str) -> Iterator[None]:
    """Say in which operation an error was found."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{operation}: {error}") from error


# --- arithmetic -------------------------------------------------------------------------

ARITHMETIC = {  # y = f(a, b), and the gradients of a and b before broadcasting is undone
    "add": (np.add, lambda dy, y, a, b: (dy, dy)),
    "sub": (np.subtract, lambda dy, y, a, b: (dy, -dy)),
    "mul": (np.multiply, lambda dy, y, a, b: (dy * b, dy * a)),
    "div": (np.divide, lambda dy, y, a, b: (dy / b, -dy * y / b)),
    "maximum": (np.maximum, lambda dy, y, a, b: (dy * ~(a < b), dy * (a < b))),
    "neg": (np.negative, lambda dy, y, a: (-dy,)),
    "exp": (np.exp, lambda dy, y, a: (dy * y,)),
    "log": (np.log, lambda dy, y, a: (dy / a,)),
}


def _elementwise(name: str, *operands: Any) -> Variable:
    """Return the operation of the operands, element by element, broadcast as in NumPy."""
    dtype = next((o.dtype for o in operands if isinstance(o, Variable)), None)
    compute, slopes = ARITHMETIC[name]
    with named(name):
        inputs = {k: as_variable(o, dtype) for k, o in zip("ab", operands, strict=False)}
        arrays = [floats(k, v._array, "any", dtype) for k, v in inputs.items()]
        y = np.asarray(compute(*arrays))

    def back(dy: Array) -> Gradients:
        found = zip("ab", slopes(dy, y, *arrays), arrays, strict=False)
        return {key: _unbroadcast(slope, a.shape) for key, slope, a in found}

    return record(name, y, inputs, back)


def _unbroadcast(dy: Array, shape: tuple[int, ...]) -> Array:
    """Return dy, added up along the axes along which an array of the shape was repeated."""
    new = dy.ndim - len(shape)
    axes = [k for k, size in enumerate(dy.shape) if k < new or size != shape[k - new]]
    return dy.sum(tuple(axes)).reshape(shape) if axes else dy


def exp(x: Variable) -> Variable:
    """Return e to the power of each element."""
    return _elementwise("exp", x)


def log(x: Variable) -> Variable:
    """Return the natural logarithm of each element."""
    return _elementwise("log", x)


def maximum(a: Any, b: Any) -> Variable:
    """Return the larger of a and b in each place; of equals a gets the gradient."""
    return _elementwise("maximum", a, b)


def _matmul(a: Any, b: Any) -> Variable:
    """Return the product of two matrices, or of a matrix and a vector: a dense layer's."""
    a, b = as_variable(a), as_variable(b)
    axes = a._array.ndim, b._array.ndim
    if not {*axes} <= {1, 2} or a.shape[-1] != b.shape[0]:
        raise ValueError(
            f"matmul: a has shape {a.shape} and b has shape {b.shape}; they must be "
            "matrices or vectors, and the last axis of a as long as the first of b"
        )
    x = a._array if axes[0] == 2 else a._array[None]
    w = b._array.T if axes[1] == 2 else b._array[None]
    with named("matmul"):
        y = linear_forward(x, w)

    def back(dy: Array) -> Gradients:
        dx, dw, _ = linear_backward(dy.reshape(y.shape), x, w)
        return {"a": dx.reshape(a.shape), "b": dw.T.reshape(b.shape)}

    return record("matmul", y.reshape(a.shape[:-1] + b.shape[1:]), {"a": a, "b": b}, back)


def _picked(name: str, x: Variable, places: Array) -> Variable:
    """Return the numbers that stand at these places of x, as often as they are named."""
    like = x._array

    def back(dy: Array) -> Gradients:
        dx = np.zeros(like.size, like.dtype)
        np.add.at(dx, places, dy)
        return {"a": dx.reshape(like.shape)}

    return record(name, like.reshape(-1)[places], {"a": x}, back)
