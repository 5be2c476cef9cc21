"""CUDA as `numba.cuda` spells it, for kernels that also run where no GPU is.

    from course import cuda

    @cuda.jit
    def _y_cuda(y, x):
        for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
            y[k] = x[k] + x[k]

    cuda.launch(_y_cuda, y.size, y, x)

On a GPU the kernel is compiled by numba-cuda, and the names of this module become those of
`numba.cuda`. In the simulator (course/cuda/simulator.py) they are what they are here: plain
Python, one thread after the other. Which of the two runs is decided by where the arrays
lie; see course/device.py. Nothing here imports numba.cuda: course/cuda/native.py does, when
the first array goes to a GPU.

A kernel may use what is listed in __all__, the module `math`, numba's scalar types, and
device functions. Arrays of up to 2**31 elements.
"""

import math
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

import numpy as np
from numba import int32, uint32

from course.cuda import simulator
from course.cuda.simulator import (
    CudaError,
    all_sync,
    any_sync,
    atomic,
    ballot_sync,
    blockDim,
    blockIdx,
    grid,
    gridDim,
    gridsize,
    local,
    shared,
    shfl_down_sync,
    shfl_sync,
    shfl_up_sync,
    shfl_xor_sync,
    syncthreads,
    syncthreads_and,
    syncthreads_count,
    syncthreads_or,
    syncwarp,
    threadIdx,
    warpsize,
)

__all__ = [
    "CudaError",
    "all_sync",
    "any_sync",
    "atomic",
    "ballot_sync",
    "blockDim",
    "blockIdx",
    "grid",
    "gridDim",
    "gridsize",
    "jit",
    "launch",
    "local",
    "shared",
    "shfl_down_sync",
    "shfl_sync",
    "shfl_up_sync",
    "shfl_xor_sync",
    "split",
    "syncthreads",
    "syncthreads_and",
    "syncthreads_count",
    "syncthreads_or",
    "syncwarp",
    "threadIdx",
    "unravel",
    "warpsize",
]

THREADS = 256  # of a block, unless a kernel asks for another number


class Code:
    """Something that can stand in a kernel, in two versions: for a GPU, for the simulator.

    Attributes
    ----------
    function : the Python function that the student reads
    options : numba's, as fastmath or max_registers; the simulator has no use for them
    name : module and name, as course.layers.relu._y_cuda
    """

    def __init__(self, function: Callable, options: dict[str, Any]):
        self.function, self.options = function, options
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.__doc__, self.__name__ = function.__doc__, function.__name__
        self.__module__, self.__wrapped__ = function.__module__, function
        self._simulated: tuple[int, Callable] = (-1, function)

    def simulated(self) -> Callable:
        """Return the function as the simulator runs it: with its own `math` and max."""
        if self._simulated[0] != simulator.launches:  # a notebook may have changed a name
            self._simulated = simulator.launches, self.function  # for one that calls itself
            function = rebuilt(self.function, _for_simulator)
            for name, value in simulator.BUILT_IN.items():
                function.__globals__.setdefault(name, value)
            self._simulated = simulator.launches, function
        return self._simulated[1]

    def native(self) -> Any:
        """Return what numba-cuda makes of it."""
        from course.cuda import native

        return native.jitted(self)

    def waits(self) -> bool:
        """Say whether its threads ever wait for each other."""
        return _waits(self.function, set())


def _for_simulator(value: Any) -> Any:
    """Return what stands for a global of a kernel in the simulator."""
    if isinstance(value, DeviceFunction):
        return value.simulated()
    return simulator.translated(value)


def rebuilt(function: Callable, change: Callable[[Any], Any]) -> FunctionType:
    """Return the function with each global and each closed-over value replaced."""
    known, names = (
        function.__globals__,
        {"__builtins__": function.__globals__["__builtins__"]},
    )
    for name in function.__code__.co_names:
        if name in known:
            names[name] = change(known[name])
    cells = tuple(
        CellType(change(cell.cell_contents)) for cell in function.__closure__ or ()
    )
    new = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, cells
    )
    new.__module__, new.__qualname__ = function.__module__, function.__qualname__
    return new


def _waits(function: Callable, seen: set) -> bool:
    """Say whether the function, or one that it calls, has a barrier or a shuffle."""
    code = function.__code__
    if code in seen:
        return False
    seen.add(code)
    if not simulator.WAITING.isdisjoint(code.co_names):
        return True
    inner = [cell.cell_contents for cell in function.__closure__ or ()]
    inner += [function.__globals__.get(name) for name in code.co_names]
    return any(
        getattr(value, "waiting", False) or _waits(value.function, seen)
        for value in inner
        if isinstance(value, Code)
    )


class DeviceFunction(Code):
    """A function that kernels call."""

    def __call__(self, *arguments: Any) -> Any:
        """Run it as a part of the thread that the simulator runs now."""
        return self.simulated()(*arguments)


class Kernel(Code):
    """A function that runs in many threads at once: kernel[blocks, threads](arguments).

    Attributes
    ----------
    launched : the types with which the simulator has run it, as ("float32[2]", "int64"),
        and how many threads a block had, at most
    runs : how often the simulator has run it
    """

    def __init__(self, function: Callable, options: dict[str, Any], variant: str = ""):
        super().__init__(function, options)
        self.name += f"[{variant}]" if variant else ""
        self.launched: dict[tuple[str, ...], int] = {}
        self.runs = 0
        KERNELS[self.name] = self

    def __getitem__(self, configuration: tuple) -> Callable:
        """Return the function that launches it with so many blocks and threads."""
        blocks, threads = configuration

        def run(*arguments: Any) -> None:
            arrays = [a for a in arguments if isinstance(a, CudaArray)]
            wrong = [a for a in arguments if isinstance(a, np.ndarray)]
            if wrong or not arrays:
                where = f"{len(wrong)} on cpu, {len(arrays)} on cuda"
                raise TypeError(
                    f"{self.__name__} runs on arrays on cuda; of its arrays, {where}: "
                    'a = course.device.to("cuda", a)'
                )
            if len({a.simulated for a in arrays}) > 1:
                raise TypeError(f"{self.__name__} got arrays of a GPU and of the simulator")
            if arrays[0].simulated:
                simulator.launch(self, blocks, threads, arguments)
            else:
                from course.cuda import native

                native.launch(self, blocks, threads, arguments)

        return run

    def __call__(self, *arguments: Any) -> None:
        """Say how a kernel is launched."""
        raise TypeError(
            f"a kernel is launched by so many blocks of so many threads: "
            f"{self.__name__}[blocks, threads](...), or "
            f"cuda.launch({self.__name__}, count, ...) with a thread for each of count"
        )


KERNELS: dict[str, Kernel] = {}  # name -> kernel, all that were ever made


def jit(
    function: Callable | None = None,
    *,
    device: bool = False,
    variant: str = "",
    **options: Any,
) -> Any:
    """Make a kernel, or with device=True a function that kernels call.

    A factory that makes several kernels from one source tells them apart by `variant`.
    The options are those of `numba.cuda.jit`.
    """
    if function is None:
        return lambda function: jit(function, device=device, variant=variant, **options)
    if device:
        return DeviceFunction(function, options)
    return Kernel(function, options, variant)


def launch(kernel: Kernel, count: int, *arguments: Any, threads: int = THREADS) -> None:
    """Launch the kernel with a thread for each of `count` elements; with none, not at all.

    The last block may have threads to spare: the kernel must not let them write.
    """
    if count:
        kernel[-(-count // threads), threads](*arguments)


class CudaArray:
    """An array in the memory of a GPU, or of the simulator: row-major, and without sums.

    It is a place, not a tensor: layers compute with it, Python's operators do not. It is
    made by `course.device.to("cuda", a)`, and `course.device.host` copies it back; nothing
    else does, not even NumPy behind your back.
    """

    __slots__ = ("memory", "simulated")
    __array_priority__ = 1000  # so that NumPy's operators leave the answer to us

    def __init__(self, memory: Any, simulated: bool):
        self.memory, self.simulated = memory, simulated

    @property
    def shape(self) -> tuple[int, ...]:
        """Return how many elements there are along each axis."""
        return self.memory.shape

    @property
    def dtype(self) -> np.dtype:
        """Return the type of an element."""
        return self.memory.dtype

    @property
    def ndim(self) -> int:
        """Return the number of axes."""
        return len(self.memory.shape)

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.memory.shape)

    @property
    def nbytes(self) -> int:
        """Return how many bytes it takes."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        """Return the number of elements along the first axis."""
        if not self.ndim:
            raise TypeError("an array without axes has no length")
        return self.memory.shape[0]

    def __bool__(self) -> bool:
        """Refuse to be true or false: `if a:` asks for its numbers, or forgot `is None`."""
        raise TypeError(f"{self!r} is neither true nor false; `a is None`, `a.size`")

    def copy(self) -> "CudaArray":
        """Return a copy, in the same place."""
        if self.simulated:
            return CudaArray(self.memory.copy(), True)
        from course.cuda import native

        memory = native.allocate(self.shape, self.dtype)
        native.assign(memory, self.memory)
        return CudaArray(memory, False)

    def __deepcopy__(self, memo: dict) -> "CudaArray":
        """Return a copy: that of a network has its own weights."""
        return self.copy()

    def reshape(self, *shape: Any) -> "CudaArray":
        """Return the same memory, seen in another shape; as NumPy's."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        if self.simulated:
            return CudaArray(self.memory.reshape(wanted), True)
        wanted = np.empty(self.shape, np.void).reshape(wanted).shape  # what -1 stands for
        return CudaArray(self.memory.reshape(*wanted), False)

    def ravel(self) -> "CudaArray":
        """Return the same memory as one axis."""
        return self.reshape(-1)

    def __getitem__(self, index: Any) -> "CudaArray":
        """Return a[first:past], a view along the first axis."""
        if not isinstance(index, slice) or index.step not in (None, 1):
            raise TypeError(
                f"an array on cuda can be cut as a[first:past], not by {index!r}; "
                "course.device.host(a) copies it to the CPU"
            )
        return CudaArray(self.memory[index], self.simulated)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Let other libraries see the memory of a GPU; none sees the simulator's."""
        if self.simulated:
            raise AttributeError("the simulator's memory is not a GPU's")
        return self.memory.__cuda_array_interface__

    def __array__(self, *arguments: Any, **keywords: Any) -> np.ndarray:
        """Refuse to be copied by accident."""
        raise TypeError(
            f"{self!r} is on cuda, and NumPy computes on the CPU: course.device.host(a) "
            "copies it there"
        )

    def __repr__(self) -> str:
        """Return shape, dtype and place."""
        where = "simulated cuda" if self.simulated else "cuda"
        return f"CudaArray({self.shape}, {self.dtype}, {where})"


@jit(device=True)
def unravel(t, shape):
    """Return the four indices of the flat index t into an array of four axes.

    In 32 bits without sign, whose divisions a GPU does fastest.
    """
    t, size = uint32(t), uint32(shape[3])
    rest = t // size
    d3 = t - rest * size
    t, size = rest, uint32(shape[2])
    rest = t // size
    d2 = t - rest * size
    size = uint32(shape[1])
    d0 = rest // size
    return int32(d0), int32(rest - d0 * size), int32(d2), int32(d3)


@jit(device=True)
def split(t, width):
    """Return the row of the flat index t, and its place in it, in rows of this width.

    In 32 bits without sign, as `unravel`.
    """
    t, width = uint32(t), uint32(width)
    row = t // width
    return int32(row), int32(t - row * width)


@jit(device=True)
def windows_over(p, count, K, S, D):
    """Return first and past of the windows that can see pixel p of the padded axis.

    Window i begins at i*S and reaches (K-1)*D further; there are `count` windows. With
    dilation some of them look past the pixel, between two taps.
    """
    first = max(0, (p - (K - 1) * D + S - 1) // S)
    return first, min(count, p // S + 1)
