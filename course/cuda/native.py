"""The way to a real GPU: the only module that imports numba.cuda.

Everything else of the course speaks to course/cuda/__init__.py. Here kernels are compiled
by numba-cuda, and arrays are allocated and copied. NVIDIA maintains numba-cuda for CUDA 13
and works on a successor: when that has ripened, this file changes, and no kernel.
"""

import ctypes
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

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


class GPU(NamedTuple):
    """What the driver says of a GPU."""

    name: str
    capability: tuple[int, int]
    processors: int  # multiprocessors, 128 or 64 lanes each
    memory: int  # bytes


def gpus() -> tuple[list[GPU], str]:
    """Return the GPUs that the CUDA driver sees, and for which CUDA it was made.

    None and an empty text without a driver.
    """
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return [], ""
    number, version, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(100)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(number)):
        return [], ""
    cuda.cuDriverGetVersion(ctypes.byref(version))
    found = []
    for k in range(number.value):
        device, memory = ctypes.c_int(), ctypes.c_size_t()
        cuda.cuDeviceGet(ctypes.byref(device), k)
        cuda.cuDeviceGetName(name, len(name), device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        numbers = []
        for attribute in (75, 76, 16):  # capability, two numbers; multiprocessors
            cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
            numbers.append(number.value)
        major, minor, processors = numbers
        found.append(GPU(name.value.decode(), (major, minor), processors, memory.value))
    return found, f"{version.value // 1000}.{version.value % 1000 // 10}"


def cuda_devices() -> list[str]:
    """Return the names of the GPUs that the CUDA driver sees; none without a driver."""
    return [gpu.name for gpu in gpus()[0]]


@cache
def why_not() -> str:
    """Return why no GPU can be used here; empty if one can."""
    if not cuda_devices():
        return "no NVIDIA GPU found, or no driver for it"
    try:
        if not library().is_available():
            return "numba-cuda finds no GPU it can use"
    except NoGPU as error:
        return str(error)
    from cuda import pathfinder

    try:
        for name in ("nvvm", "nvrtc"):
            pathfinder.load_nvidia_dynamic_lib(name)
    except pathfinder.DynamicLibNotFoundError:
        return f"numba-cuda lacks NVIDIA's compiler {name}: {INSTALL}"
    return ""


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


def assign(memory: Any, values: Any) -> None:
    """Write values, of the CPU or of the GPU, into memory of the GPU."""
    memory.copy_to_device(values)


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


@cache
def intrinsics() -> dict[str, Any]:
    """Return the instructions of course/cuda/vectors.py, by name, as numba-cuda has them.

    An intrinsic is a function from the types of its arguments to a signature, and to a
    function that writes LLVM's code for it.
    """
    library()
    from llvmlite import ir
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic

    number, bits = ir.FloatType(), ir.IntType(32)
    float32 = types.float32

    def flat(a):
        """Say whether the type is a flat array of 4-byte numbers."""
        dtypes = types.float32, types.int32
        return isinstance(a, types.Array) and a.ndim == 1 and a.dtype in dtypes

    def place(context, builder, signature, args):
        """Return the address of four numbers, and their type."""
        array, i = signature.args[:2]
        first = context.make_array(array)(context, builder, args[0]).data
        first = builder.gep(first, [context.cast(builder, args[1], i, types.uintp)])
        four = ir.VectorType(first.type.pointee, 4)
        return builder.bitcast(first, ir.PointerType(four, first.type.addrspace)), four

    @intrinsic
    def ld4(typing, a, i):
        def write(context, builder, signature, args):
            address, _ = place(context, builder, signature, args)
            four = builder.load(address, align=16)
            values = [builder.extract_element(four, bits(k)) for k in range(4)]
            return cgutils.pack_array(builder, values)

        return (types.UniTuple(a.dtype, 4)(a, i), write) if flat(a) else None

    @intrinsic
    def st4(typing, a, i, v0, v1, v2, v3):
        def write(context, builder, signature, args):
            address, four = place(context, builder, signature, args)
            values = ir.Constant(four, ir.Undefined)
            for k in range(4):
                values = builder.insert_element(values, args[2 + k], bits(k))
            builder.store(values, address, align=16)
            return context.get_dummy_value()

        return (types.void(a, i, *[float32] * 4), write) if flat(a) else None

    @intrinsic
    def tf32(typing, value):
        def write(context, builder, signature, args):
            kind = ir.FunctionType(bits, [number])
            code = "cvt.rna.tf32.f32 $0, $1;"
            return builder.bitcast(builder.asm(kind, code, "=r,f", args, False), number)

        return float32(float32), write

    @intrinsic
    def mma(typing, s0, s1, s2, s3, a0, a1, a2, a3, b0, b1):
        def write(context, builder, signature, args):
            ab = [builder.bitcast(value, bits) for value in args[4:]]
            four = ir.LiteralStructType([number] * 4)
            kind = ir.FunctionType(four, [bits] * 6 + [number] * 4)
            code = (
                "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {$0,$1,$2,$3}, "
                "{$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
            )
            registers = "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"
            sums = builder.asm(kind, code, registers, [*ab, *args[:4]], True)
            values = [builder.extract_value(sums, k) for k in range(4)]
            return cgutils.pack_array(builder, values)

        return types.UniTuple(float32, 4)(*[float32] * 10), write

    return {"ld4": ld4, "st4": st4, "tf32": tf32, "mma": mma}


def capability() -> tuple[int, int]:
    """Return the compute capability of the GPU, as (9, 0)."""
    return tuple(library().get_current_device().compute_capability)


def launch(kernel: Any, blocks: Any, threads: Any, arguments: tuple) -> None:
    """Run a kernel on arrays of the GPU."""
    values = [getattr(argument, "memory", argument) for argument in arguments]
    kernel.native()[blocks, threads](*values)


# --- compiling where no GPU is: course/cuda/compile_check.py ------------------------------

OLDEST = 7, 5  # the oldest architecture that CUDA 13 compiles for


@contextmanager
def without_gpu() -> Iterator[None]:
    """Within a `with`, let numba-cuda compile where there is no driver and no NVRTC.

    It asks the GPU for its architecture, and looks for NVRTC, which compiles C++. Neither
    matters to our kernels: what `intermediate` returns is the same for all architectures.
    """
    library()
    from numba.cuda import cuda_paths, dispatcher

    before = dispatcher.get_current_device, cuda_paths._get_nvrtc_path
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=OLDEST)
    cuda_paths._get_nvrtc_path = lambda: cuda_paths._env_path_tuple("not needed", None)
    try:
        cuda_paths.get_cuda_paths()  # remembers what it found
        yield
    finally:
        dispatcher.get_current_device, cuda_paths._get_nvrtc_path = before


def intermediate(kernel: Any, types: str) -> list[str]:
    """Return what Numba's front end makes of a kernel: LLVM's language, for any GPU.

    `types` are those of the arguments, as Numba spells them: "float32[:, ::1], int64".
    """
    with without_gpu():
        from numba.cuda.compiler import _compile_pyfunc_with_fixup

        code, _ = _compile_pyfunc_with_fixup(
            kernel.native().py_func,
            f"void({types})",
            device=False,
            abi="numba",
            cc=OLDEST,
            fastmath=kernel.options.get("fastmath", False),
            launch_bounds=kernel.options.get("launch_bounds"),
        )
        return code.llvm_strs


def ptx(code: list[str], architecture: int, fastmath: bool = False) -> str:
    """Return the assembly text for 75, 80, 90, ... Several threads may ask at once."""
    from numba.cuda.cudadrv import nvvm

    found = nvvm.compile_ir(code, fastmath=fastmath, opt=3, arch=f"compute_{architecture}")
    return found.decode().strip("\0 \n")
