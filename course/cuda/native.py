"""The way to a real GPU: the only module that imports numba.cuda.

Everything else of the course speaks to course/cuda/__init__.py. Here kernels are compiled
by numba-cuda, and arrays are allocated and copied. NVIDIA maintains numba-cuda for CUDA 13
and works on a successor: when that has ripened, this file changes, and no kernel.
"""

import ctypes
import importlib.util
import os
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

INSTALL = 'pip install "convnet-course[cuda]"'


class NoGPU(RuntimeError):
    """No GPU can be used here; the message says why, and what to do."""


@cache
def library() -> ModuleType:
    """Return numba.cuda of numba-cuda, or say what to install."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise NoGPU(f"kernels on a GPU need numba-cuda: {INSTALL}")
    os.environ.setdefault("NUMBA_CUDA_ARRAY_INTERFACE_SYNC", "0")
    from numba import cuda

    return cuda


def cuda_devices() -> list[str]:
    """Return the names of the GPUs that the CUDA driver sees; none without a driver."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return []
    count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(100)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names = []
    for k in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), k)
        cuda.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode())
    return names


@cache
def why_not() -> str:
    """Return why no GPU can be used here; empty if one can."""
    if not cuda_devices():
        return "no NVIDIA GPU found, or no driver for it"
    try:
        return "" if library().is_available() else "numba-cuda finds no GPU it can use"
    except NoGPU as error:
        return str(error)


def need() -> None:
    """Raise NoGPU unless a GPU can be used."""
    if why_not():
        raise NoGPU(
            f"{why_not()}. Kernels also run, slowly, in the simulator: "
            "with course.device.simulated(): ..."
        )


def to_device(a: np.ndarray) -> Any:
    """Copy an array to the GPU."""
    return library().to_device(a)


def allocate(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return memory of the GPU, with whatever is in it."""
    return library().device_array(shape, dtype)


def to_host(memory: Any) -> np.ndarray:
    """Copy memory of the GPU to a new array."""
    return memory.copy_to_host()


def jitted(code: Any) -> Any:
    """Return numba-cuda's version of a kernel or a device function, made once."""
    if "_native" not in code.__dict__:
        from course import cuda

        def change(value: Any) -> Any:
            if value is cuda:
                return library()
            return value.native() if isinstance(value, cuda.Code) else value

        function = cuda.rebuilt(code.function, change)
        device = isinstance(code, cuda.DeviceFunction)
        code._native = library().jit(device=device, **code.options)(function)
    return code._native


def launch(kernel: Any, blocks: Any, threads: Any, arguments: tuple) -> None:
    """Run a kernel on arrays of the GPU."""
    values = [getattr(argument, "memory", argument) for argument in arguments]
    kernel.native()[blocks, threads](*values)
