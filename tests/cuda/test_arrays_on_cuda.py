"""Arrays on cuda: what they can do, and that nothing else happens to them unasked."""

import copy
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from course import cuda, device
from course.cuda import CudaArray, native
from course.device import (
    assign,
    empty,
    empty_like,
    fill,
    floats,
    full,
    host,
    launch,
    on_cpu,
    same_device,
    simulated,
    to,
)
from course.layers import Linear, relu_forward
from course.layers.relu import _y_cpu
from tests.cuda.every import every_place, on_cuda, poison

sim = pytest.mark.sim
SHAPES = [(), (0,), (5,), (2, 0, 3), (2, 3), (2, 3, 4, 5)]


@pytest.fixture
def x():
    """An array in the simulator."""
    with simulated():
        return to("cuda", np.arange(6, dtype=np.float32).reshape(2, 3))


@cuda.jit
def double_cuda(y, x):
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = x[k] + x[k]


# --- there and back ---------------------------------------------------------------------


@every_place
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, bool])
def test_there_and_back_nothing_changes(place, shape, dtype):
    a = (np.arange(np.prod(shape, dtype=int)) % 2).astype(dtype).reshape(shape)

    def there_and_back():
        moved = to("cuda", a)
        assert isinstance(moved, CudaArray) and to("cuda", moved) is moved
        assert (moved.shape, moved.dtype, moved.ndim) == (a.shape, a.dtype, a.ndim)
        assert (moved.size, moved.nbytes) == (a.size, a.nbytes)
        return to("cpu", moved)

    back = on_cuda(place, there_and_back)
    np.testing.assert_array_equal(back, a)
    assert back.dtype == a.dtype and back.shape == a.shape


@every_place
def test_any_order_in_memory_arrives_row_by_row(place):
    a = np.arange(24.0).reshape(4, 6)
    for view in (a.T, a[::2, ::-1], np.asfortranarray(a)):
        back = on_cuda(place, lambda view=view: to("cuda", view).ravel())
        np.testing.assert_array_equal(back, view.ravel())


@sim
def test_both_ways_are_copies(x):
    before = host(x)
    before[:] = -1
    assert host(x)[1, 2] == 5
    a = np.zeros(3)
    assert host(a) is a and to("cpu", a) is a
    with simulated():
        moved = to("cuda", a)
    a[:] = 1
    assert not host(moved).any()


@every_place
def test_copies_have_their_own_memory(place):
    def copies():
        a = to("cuda", np.arange(4.0))
        one, other = a.copy(), copy.deepcopy(a)
        assign(a, np.zeros(4))
        assign(one, other)
        return a, one, other

    a, one, other = on_cuda(place, copies)
    assert list(a) == [0] * 4 and list(one) == list(other) == [0, 1, 2, 3]


@sim
def test_only_devices_and_arrays_are_moved():
    with pytest.raises(ValueError, match='device must be "cpu" or "cuda", not \'gpu\''):
        to("gpu", np.zeros(2))
    with pytest.raises(TypeError, match="a list cannot go to cuda; an array can"):
        to("cuda", [1, 2])


# --- views ------------------------------------------------------------------------------


@every_place
def test_views_share_the_memory(place):
    def views():
        a = to("cuda", np.zeros((4, 3)))
        double_cuda[1, 3](a[1:2].ravel(), to("cuda", np.ones(3)))
        double_cuda[1, 6](a.reshape(2, -1)[1:].reshape((6,)), to("cuda", np.full(6, 2.0)))
        return a, a[:0], a[-1:]

    a, none, last = on_cuda(place, views)
    np.testing.assert_array_equal(a[:, 0], [0, 2, 4, 4])
    assert none.shape == (0, 3) and list(last[0]) == [4, 4, 4]


@sim
@pytest.mark.parametrize("index", [0, (0, 1), slice(0, 4, 2), [1], None, ...])
def test_a_view_is_a_cut_along_the_first_axis(x, index):
    with pytest.raises(TypeError, match=r"can be cut as a\[first:past\], not by"):
        x[index]


@sim
def test_a_shape_that_does_not_fit_is_an_error(x):
    with pytest.raises(ValueError):
        x.reshape(4, 2)
    with pytest.raises(TypeError, match="no length"), simulated():
        len(to("cuda", np.array(1.0)))


# --- nothing behind your back -----------------------------------------------------------


@sim
@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + 1,
        lambda x: 1 - x,
        lambda x: x @ x,
        lambda x: -x,
        lambda x: x < 2,
        lambda x: np.ones((2, 3)) + x,
        lambda x: np.float32(2) * x,
        lambda x: np.exp(x),
        lambda x: np.asarray(x),
        lambda x: np.sum(x),
        lambda x: np.add(np.ones((2, 3)), x),
        lambda x: np.concatenate([x, x]),
        lambda x: np.ones((2, 3)).__setitem__(slice(None), x),
        lambda x: np.maximum(x, 0, out=np.ones((2, 3))),
        list,
        float,
        bool,
        lambda x: x.__setitem__(0, 1),
        lambda x: x.__iadd__(1) if hasattr(x, "__iadd__") else x.__index__(),
    ],
)
def test_python_and_numpy_compute_nothing_with_it(x, use):
    with pytest.raises((TypeError, AttributeError)):
        use(x)
    np.testing.assert_array_equal(host(x).ravel(), np.arange(6))


@sim
def test_the_refusal_says_what_to_do(x):
    with pytest.raises(TypeError, match=r"simulated cuda\) is on cuda, and NumPy computes"):
        np.exp(x)
    with pytest.raises(TypeError, match=r"course\.device\.host\(a\) copies it there"):
        np.asarray(x)
    assert not hasattr(x, "__cuda_array_interface__"), "it is no memory of a GPU"


@sim
def test_a_kernel_refuses_arrays_of_the_cpu(x):
    with pytest.raises(TypeError, match=r"double_cuda runs on arrays on cuda; .* 1 on cpu"):
        double_cuda[1, 6](x, np.zeros(6))
    with pytest.raises(TypeError, match="0 on cpu, 0 on cuda"):
        double_cuda[1, 6](1, 2)
    with pytest.raises(TypeError, match="launched by so many blocks of so many threads"):
        double_cuda(x, x)
    elsewhere = CudaArray(x.memory, simulated=False)
    with pytest.raises(TypeError, match="arrays of a GPU and of the simulator"):
        double_cuda[1, 6](x, elsewhere)


@sim
def test_loops_of_the_cpu_refuse_arrays_on_cuda(x):
    with pytest.raises(TypeError, match="computes on the CPU and has no CUDA kernel"):
        fill(_y_cpu, 6, x.ravel(), x.ravel())


# --- a mixture names both ---------------------------------------------------------------


@sim
def test_two_devices_in_one_call_are_named(x):
    a = np.zeros((2, 3), np.float32)
    with pytest.raises(TypeError, match="w is on cpu but the other arrays are on cuda"):
        same_device("w", a, x)
    with pytest.raises(TypeError, match="w is on cuda but the other arrays are on cpu"):
        floats("w", x, "(N, C)", a)
    elsewhere = CudaArray(x.memory, simulated=False)
    with pytest.raises(TypeError, match="w and the other arrays: a GPU and the simulator"):
        same_device("w", elsewhere, x)
    layer = Linear(3, 2, rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match="w is on cpu but the other arrays are on cuda"):
        layer(x)


@sim
def test_floats_looks_at_dtype_and_shape_of_both(x):
    assert floats("x", x, "(N, C)", x) is x
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\); it must be \(N,\)"):
        floats("x", x, "(N,)")
    with pytest.raises(TypeError, match="x is float32 but the other arrays are float64"):
        floats("x", x, "any", np.float64)


# --- new arrays -------------------------------------------------------------------------


@sim
def test_new_arrays_begin_with_poison(x):
    assert np.isnan(host(empty_like(x))).all()
    assert np.isnan(host(empty(3, np.float64, x))).all()
    assert (host(empty((2, 2), np.int32, x)) == (2**31 - 1) // 3).all()
    assert on_cpu(empty(3, np.float32, np.zeros(1)))


@every_place
@pytest.mark.parametrize("shape", [0, 7, (), (3, 0), (2, 300)])
def test_full_is_filled(place, shape):
    def filled():
        return full(shape, 2.5, np.float32, to("cuda", np.zeros(1)))

    a = on_cuda(place, filled)
    assert a.dtype == np.float32 and (a == 2.5).all() and a.shape == np.empty(shape).shape


@every_place
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257])
def test_launch_has_a_thread_for_each_element(place, size):
    def doubled():
        x = to("cuda", np.arange(size, dtype=float))
        y = empty_like(x)
        launch(double_cuda, size, y, x)
        return y

    np.testing.assert_array_equal(on_cuda(place, doubled), 2 * np.arange(size))


@sim
def test_a_gpu_in_tests_begins_with_poison_too(x, monkeypatch):
    """The memory that a GPU hands out may hold the right answer of the run before."""
    monkeypatch.setattr(native, "to_device", np.copy)
    with poison():
        made = empty(3, np.float32, CudaArray(np.zeros(2), simulated=False))
    assert np.isnan(made.memory).all()


# --- where cuda is ----------------------------------------------------------------------


@pytest.mark.skipif(not native.why_not(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_why():
    with simulated(False), pytest.raises(RuntimeError) as caught:
        to("cuda", np.zeros(2))
    assert str(caught.value) == (
        f"{native.why_not()}. Kernels also run, slowly, in the simulator: "
        "with course.device.simulated(): ..."
    )


@sim
def test_the_environment_can_ask_for_the_simulator():
    program = (
        "import numpy as np\n"
        "from course.device import host, to\n"
        "from course.layers import relu_forward\n"
        "print(host(relu_forward(to('cuda', np.array([-1.0, 2.0])))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[0. 2.]\n", "")


@sim
def test_simulated_ends_with_the_with():
    before = device._simulated
    with pytest.raises(KeyError), simulated():
        assert device._simulated
        raise KeyError
    assert device._simulated == before


@sim
def test_arrays_stay_where_they_were_made(x):
    """Functions compute where their arrays are, also outside the `with`."""
    with simulated(False):
        y = relu_forward(x)
    assert repr(y) == "CudaArray((2, 3), float32, simulated cuda)"


@sim
def test_course_needs_no_numba_cuda():
    """Importing course.cuda and computing in the simulator loads nothing of numba.cuda."""
    program = (
        "import sys\n"
        "import numpy as np\n"
        "from course.device import simulated, to\n"
        "from course.layers import relu_forward, softmax_forward\n"
        "with simulated():\n"
        "    relu_forward(softmax_forward(to('cuda', np.ones((2, 3)))))\n"
        "print(*[m for m in sys.modules if m.startswith(('numba.cuda', 'numba_cuda'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


@pytest.mark.skipif(
    not importlib.util.find_spec("numba_cuda"), reason="numba-cuda is not installed"
)
def test_the_words_of_a_kernel_are_those_of_numba():
    ours = {w for w in cuda.__all__ if isinstance(getattr(cuda, w), cuda.DeviceFunction)}
    words = set(cuda.__all__) - ours - {"CudaError", "launch"}
    assert "syncwarp" in words and words <= set(dir(native.library()))
    assert set(dir(native.library().atomic)) >= {"add", "max", "min", "exch", "cas"}
