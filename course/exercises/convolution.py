"""Exercise 9: filters in one and two dimensions, and the homework.

Images and filters are planes: x is (H, W) and w is (KH, KW). Right answers enumerate the
windows of an image; wrong answers are the loops that students write.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from course.exercises.picture import Panel, Window
from course.exercises.spec import Mutant, Question, Speed
from course.layers import conv2d_forward, maxpool2d_forward, relu_forward

IMAGE = np.array(
    [
        [0.0, 1.0, 2.0, 1.0, 0.0],
        [4.0, 1.0, 0.0, 1.0, 0.0],
        [2.0, 0.0, 1.0, 1.0, 1.0],
        [1.0, 2.0, 3.0, 1.0, 0.0],
        [0.0, 4.0, 3.0, 2.0, 0.0],
    ]
)
FILTER = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])

HOMEWORK_IMAGE = np.array(
    [
        [1.0, 2.0, 3.0, 4.0, 5.0],
        [2.0, 2.0, 1.0, 1.0, 1.0],
        [3.0, 2.0, 1.0, 1.0, 1.0],
        [4.0, 1.0, 1.0, 1.0, 1.0],
        [5.0, 1.0, 1.0, 1.0, 1.0],
    ]
)
HOMEWORK_FILTER = np.array([[0.0, -1.0, 0.0], [1.0, 1.0, 1.0], [0.0, -1.0, 0.0]])

FLIPPED = "You flip the filter: w[0] must meet the first pixel of the window, not the last."
OVERWRITTEN = "Each product overwrites the one before. Add them up: +=, not =."
WHOLE = "Your y has the type of x, and bytes lose the fraction. np.zeros makes floats."
EARLY = "Only the first row is computed. Does `return` stand inside the loop?"
RANGE = "The last window is lost: n pixels hold n-K+1 windows, so the range ends there."


def wrong(says: str) -> Callable[[Callable], Mutant]:
    """Turn a function into a wrong answer with the sentence that explains it."""
    return lambda function: Mutant(says, function)


def products(w: np.ndarray, pixels: np.ndarray) -> str:
    """Return a sum in words: weight times pixel, term after term."""
    terms = [f"{a:.3g}·{p:.3g}" for a, p in zip(w.ravel(), pixels.ravel(), strict=True)]
    return f"{' + '.join(terms)} (weight·pixel)"


# ---------------------------------------------------------------- right answers


def correlated(x, w, stride=1):
    """Every stride-th window of x, times w, summed."""
    windows = sliding_window_view(np.asarray(x, np.float64), w.shape)
    return np.einsum("ijuv,uv->ij", windows[::stride, ::stride], w)


def correlated_1d(x, w):
    """Every window of x, times w, summed."""
    return sliding_window_view(np.asarray(x, np.float64), len(w)) @ w


def banded(w, n):
    """Row i holds w centred on column i, cut off at the ends."""
    half = len(w) // 2
    rows = [np.pad(w, (i, n))[half : half + n] for i in range(n)]
    return np.array(rows, np.float64)


def painted(x, w):
    """Every pixel of x adds its own copy of w, as high as the pixel is bright."""
    y = np.zeros((x.shape[0] + w.shape[0] - 1, x.shape[1] + w.shape[1] - 1))
    for (p, q), pixel in np.ndenumerate(np.asarray(x, np.float64)):
        y[p : p + w.shape[0], q : q + w.shape[1]] += pixel * w
    return y


def six_filters():
    """The six filters that the question describes."""
    cross = np.array([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    identity, right, change = np.zeros((3, 3, 3))
    identity[1, 1] = 1
    right[1, 0] = 1
    change[1] = -1, 0, 1
    box = np.full((3, 3), 1 / 9)
    return np.stack([identity, right, box, change, cross, identity - cross])


def stages(x, w, stride=1, padding=0, pool=2):
    """The maps after convolution, ReLU and max pooling."""
    z = correlated(np.pad(np.asarray(x, np.float64), padding), w, stride)
    a = np.where(z > 0, z, 0.0)
    windows = sliding_window_view(a, (pool, pool))[::pool, ::pool]
    return z, a, windows.max(axis=(2, 3))


def by_hand():
    """The three maps of the homework: no padding, stride 2, 2x2 pooling."""
    return stages(HOMEWORK_IMAGE, HOMEWORK_FILTER, stride=2)


def pipeline(x, w, stride, padding, pool):
    """The last of the three maps."""
    return stages(x, w, stride, padding, pool)[2]


def unmasking():
    """One pixel lights up one tap: which one says whether the filter was flipped."""
    return np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]])


# ----------------------------------------------------------------------- cases


def plane(rng: np.random.Generator, H: int, W: int, k: int) -> np.ndarray:
    """Return a random plane: whole numbers, negative, float32, strided, column order."""
    x = rng.normal(size=(H, 2 * W))
    x = (x[:, ::2], -abs(x[:, ::2]), np.round(2 * x[:, ::2]))[k % 3]
    if k % 5 == 0:
        x = x.astype(np.float32)
    return (np.ascontiguousarray(x), np.asfortranarray(x), x)[k % 7 % 3]


def cases_1d(rng: np.random.Generator) -> Iterator[tuple]:
    """Vectors and filters of all small lengths."""
    yield np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0])
    yield np.array([1.0, 1.0, 1.0, 0.0, 0.0]), np.array([1.0, 0.0, 1.0])
    yield rng.integers(1, 256, 3, np.uint8), np.array([0.5, 1.25])
    for n in range(1, 21):
        for K in range(1, n + 1):
            yield plane(rng, 1, n, n + K)[0], rng.integers(-3, 4, K) + 0.5


def cases_banded(rng: np.random.Generator) -> Iterator[tuple]:
    """Filters of odd length, longer and shorter than the vector."""
    yield np.array([1.0, 2.0, 3.0]), 3
    for n in range(1, 21):
        for K in range(1, 21, 2):
            yield rng.uniform(0.1, 3, K).round(2) * rng.choice([-1, 1], K), n


def geometries(rng: np.random.Generator, widths: int = 3) -> Iterator[tuple]:
    """Images and filters of all small sizes, none twice."""
    k = 0
    for H in range(1, 7):
        for KH in range(1, min(H, 4) + 1):
            for KW in range(1, 5):
                for W in rng.permutation(np.arange(KW, KW + 5))[:widths]:
                    yield plane(rng, H, W, k), rng.integers(-3, 4, (KH, KW)) + k % 2 / 2
                    k += 1


def cases_2d(rng: np.random.Generator) -> Iterator[tuple]:
    """Strides 1 to 3 over all geometries, with and without a remainder."""
    yield np.arange(1.0, 10.0).reshape(3, 3), np.array([[1.0, 2.0], [0.0, 3.0]]), 1
    yield IMAGE.copy(), FILTER.copy(), 1
    yield np.arange(1.0, 26.0).reshape(5, 5), np.array([[1.0, 2.0], [0.0, 3.0]]), 2
    yield rng.integers(1, 256, (3, 3), np.uint8), np.array([[0.5, 1.25], [0.0, 1.5]]), 1
    for stride in (1, 2, 3):
        for x, w in geometries(rng, widths=1):
            yield x, w, stride


def cases_fast(rng: np.random.Generator) -> Iterator[tuple]:
    """Few kinds of arrays, since each is compiled anew: both dtypes, row after row."""
    yield np.arange(1.0, 10.0).reshape(3, 3), np.array([[1.0, 2.0], [0.0, 3.0]])
    yield IMAGE.copy(), FILTER.copy()
    for x, w in geometries(rng):
        yield np.ascontiguousarray(x), np.ascontiguousarray(w, x.dtype)


def cases_full(rng: np.random.Generator) -> Iterator[tuple]:
    """All geometries, and filters larger than the image."""
    yield np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])
    yield np.arange(1.0, 5.0).reshape(2, 2), np.array([[1.0, 2.0, 0.0]])
    for k, (x, w) in enumerate(geometries(rng)):
        yield (w, x) if k % 3 == 1 else (x, w)


def cases_homework(rng: np.random.Generator) -> Iterator[tuple]:
    """The homework with its variants, then random settings, remainders among them."""
    yield HOMEWORK_IMAGE.copy(), HOMEWORK_FILTER.copy(), 2, 0, 2
    yield HOMEWORK_IMAGE.copy(), HOMEWORK_FILTER.copy(), 2, 1, 2
    yield HOMEWORK_IMAGE.copy(), HOMEWORK_FILTER.copy(), 1, 0, 2
    yield -HOMEWORK_IMAGE, np.abs(HOMEWORK_FILTER), 1, 0, 2
    seen: set[tuple] = set()
    while len(seen) < 200:
        H, W = rng.integers(1, 10, 2)
        KH, KW = rng.integers(1, 4, 2)
        stride, padding, pool = (int(n) for n in rng.integers((1, 0, 1), (4, 3, 4)))
        room = min(H + 2 * padding - KH, W + 2 * padding - KW)
        geometry = H, W, KH, KW, stride, padding, pool
        if room >= 0 and room // stride + 1 >= pool and geometry not in seen:
            x = plane(rng, H, W, len(seen))
            yield x, rng.normal(size=(KH, KW)).astype(x.dtype), stride, padding, pool
            seen.add(geometry)


def no_arguments(rng: np.random.Generator) -> Iterator[tuple]:
    """The question has one answer."""
    yield ()


# --------------------------------------------------------------- wrong answers


def loops(x, w, stride, size, pixel):
    """Run the four loops over an output of this size; w meets pixel(i, j, u, v)."""
    y = np.zeros(size)
    for i, j, u, v in np.ndindex(*size, *w.shape):
        p, q = pixel(i * stride, j * stride, u, v)
        y[i, j] += w[u, v] * x[p, q]
    return y


def size_of(x, w, stride):
    """The right size of the output."""
    return tuple((n - K) // stride + 1 for n, K in zip(x.shape, w.shape, strict=True))


def swapped_pixels(x, w, stride):
    """Row and column of the pixel exchanged."""
    return loops(x, w, stride, size_of(x, w, stride), lambda i, j, u, v: (j + v, i + u))


def swapped_windows(x, w, stride):
    """Row and column of the window exchanged, those of the tap not."""
    return loops(x, w, stride, size_of(x, w, stride), lambda i, j, u, v: (j + u, i + v))


def swapped_size(x, w, stride):
    """Height and width of the output exchanged."""
    return loops(
        x, w, stride, size_of(x, w, stride)[::-1], lambda i, j, u, v: (i + u, j + v)
    )


def stride_in_the_bound(x, w, stride):
    """The range already counts windows, and is walked in strides as well."""
    HO, WO = size_of(x, w, stride)
    return np.array(
        [
            [
                (x[i : i + w.shape[0], j : j + w.shape[1]] * w).sum()
                for j in range(0, WO, stride)
            ]
            for i in range(0, HO, stride)
        ]
    )


def stride_on_rows_only(x, w, stride):
    """The columns are taken one by one."""
    HO, WO = size_of(x, w, stride)
    return correlated(x, w)[::stride][:HO, :WO]


def transposed_taps(x, w, stride):
    """Row and column of the tap exchanged."""
    y = np.zeros(size_of(x, w, stride))
    for i, j, u, v in np.ndindex(*y.shape, *w.shape):
        y[i, j] += w[v, u] * x[i * stride + u, j * stride + v]
    return y


def stride_on_taps(x, w, stride):
    """The taps are spread out by the stride, and the windows are not."""
    size = size_of(x, w, stride)
    return loops(x, w, 1, size, lambda i, j, u, v: (i + u * stride, j + v * stride))


def counted_before_dividing(x, w, stride):
    """The number of windows without a stride, divided by the stride."""
    size = ((n - K + 1) // stride for n, K in zip(x.shape, w.shape, strict=True))
    return loops(x, w, stride, tuple(size), lambda i, j, u, v: (i + u, j + v))


def last_product(x, w, stride=1):
    """Each window's last product alone, as = in place of += leaves it."""
    last = np.zeros(w.shape)
    last[-1, -1] = w[-1, -1]
    return correlated(x, last, stride)


def first_row_only(x, w, stride=1):
    """The right size, but the function returns after its first row."""
    y = correlated(x, w, stride)
    y[1:] = 0
    return y


def last_left_at_zero(x, w, stride=1):
    """The output has the right size, but the loops stop one window early."""
    y = correlated(x, w, stride)
    y[-1], y[:, -1] = 0, 0
    return y


def one_axis_flipped(x, w):
    """The rows of the filter upside down, its columns not."""
    return painted(x, np.asarray(w)[::-1])


def whole_windows(x, w):
    """As many outputs as there are whole windows; an error if there are none."""
    y = np.zeros((x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1))
    return loops(x, w[::-1, ::-1], 1, y.shape, lambda i, j, u, v: (i + u, j + v))


def negative_taps(x, w):
    """w[i-p, j-q] for every pixel below the upper bound, negative indices included."""
    y = np.zeros((x.shape[0] + w.shape[0] - 1, x.shape[1] + w.shape[1] - 1))
    for i, j, p, q in np.ndindex(*y.shape, *x.shape):
        if i - p < w.shape[0] and j - q < w.shape[1]:
            y[i, j] += x[p, q] * w[i - p, j - q]
    return y


def negative_columns(w, n):
    """T[i, j] for every j below n, negative ones included."""
    T = np.zeros((n, n))
    for i, u in np.ndindex(n, len(w)):
        if (j := i + u - len(w) // 2) < n:
            T[i, j] = w[u]
    return T


def whole_rows(w, n):
    """The rows of whole windows alone: the matrix of "valid"."""
    T = np.zeros((n - len(w) + 1, n))
    for i in range(len(T)):
        T[i, i : i + len(w)] = w
    return T


def layers(x, w, stride, padding, pool):
    """The homework through the course's layers, as batches with channels."""
    z = conv2d_forward(x[None, None], w[None, None], stride=stride, padding=padding)
    return maxpool2d_forward(relu_forward(z), pool)


def pooled(a, pool, step, choose=np.max):
    """Pool with any step and any choice."""
    return choose(sliding_window_view(a, (pool, pool))[::step, ::step], axis=(2, 3))


def pool_keeps_the_remainder(x, w, stride, padding, pool):
    """Windows that hang over the edge count as well."""
    a = stages(x, w, stride, padding, 1)[1]
    more = [(0, -n % pool) for n in a.shape]
    return pooled(np.pad(a, more), pool, pool)


def padded_on_two_sides(x, w, stride, padding, pool):
    """Zeros at the top and on the left only."""
    x = np.pad(x, ((padding, 0), (padding, 0)))
    return stages(x, w, stride, 0, pool)[2]


def changed_filters(k, w):
    """The six filters, number k of them replaced."""
    filters = six_filters()
    filters[k] = w
    return filters


def plain_loop(x, w):
    """The loops in plain Python: what the compiled one is measured against."""
    H, W = x.shape
    KH, KW = w.shape
    y = np.zeros((H - KH + 1, W - KW + 1))
    for i in range(H - KH + 1):
        for j in range(W - KW + 1):
            for u in range(KH):
                for v in range(KW):
                    y[i, j] += w[u, v] * x[i + u, j + v]
    return y


# ------------------------------------------------------------------- questions


def window_1d(arguments, index):
    """Show which products make the output at this index."""
    x, w = arguments
    text = products(w, x[index[0] : index[0] + len(w)])
    return Window(text, (Panel("x", x, index, w.shape), Panel("w", w)))


CORR1D = Question(
    name="corr1d",
    points=1,
    oracle=correlated_1d,
    cases=cases_1d,
    window=window_1d,
    mutants=(
        wrong(FLIPPED)(lambda x, w: correlated_1d(x, w[::-1])),
        wrong(RANGE)(lambda x, w: correlated_1d(x, w)[:-1]),
        wrong(OVERWRITTEN)(lambda x, w: x[len(w) - 1 :] * w[-1]),
        wrong("Only the first output is computed. Does `return` stand inside the loop?")(
            lambda x, w: correlated_1d(x, w) * (np.arange(len(x) - len(w) + 1) == 0)
        ),
        wrong("y is too long: n pixels hold n-K+1 whole windows, so y has that size.")(
            lambda x, w: np.append(correlated_1d(x, w), np.zeros(len(w) - 1))
        ),
        wrong("The last output stays 0: the loop stops one window early.")(
            lambda x, w: np.append(correlated_1d(x, w)[:-1], 0)
        ),
        wrong('Your window is centred on pixel i ("same"). Here it begins at pixel i.')(
            lambda x, w: correlated_1d(np.pad(x, ((len(w) - 1) // 2, len(w) // 2)), w)
        ),
        wrong("You count windows that hang over the ends. Only whole windows count here.")(
            lambda x, w: correlated_1d(np.pad(x, len(w) - 1), w)
        ),
        wrong("You divide by the number of taps. A filter sums; it does not average.")(
            lambda x, w: correlated_1d(x, w) / len(w)
        ),
        wrong(WHOLE)(lambda x, w: correlated_1d(x, w).astype(x.dtype)),
    ),
    hints=(
        "How many windows of K pixels fit in n pixels? Try n = 3, K = 2 on paper.",
        "y[i] is the dot product of w with x[i], x[i+1], ..., x[i+K-1].",
        "for i in range(len(x) - len(w) + 1): y[i] = (w * x[i : i + len(w)]).sum()",
    ),
)


def window_banded(arguments, index):
    """Show which tap stands at this place."""
    w, _ = arguments
    i, j = index
    u = j - i + len(w) // 2
    if 0 <= u < len(w):
        return Window(f"w[{u}], since {u} = {j} - {i} + K//2", (Panel("w", w, (u,)),))
    return Window(f"0: there is no tap {u} = {j} - {i} + K//2", (Panel("w", w),))


TOEPLITZ = Question(
    name="toeplitz_same",
    points=2,
    oracle=banded,
    cases=cases_banded,
    window=window_banded,
    mutants=(
        wrong("This is the transpose: w must run from left to right along each row.")(
            lambda w, n: banded(w, n).T
        ),
        wrong("w[0] stands on the diagonal. The middle tap, w[K//2], belongs there.")(
            lambda w, n: np.array(
                [
                    [w[j - i] if 0 <= j - i < len(w) else 0 for j in range(n)]
                    for i in range(n)
                ]
            )
        ),
        wrong("Taps that leave on one side come back on the other. Cut them off.")(
            lambda w, n: sum(
                a * np.roll(np.eye(n), u - len(w) // 2, axis=1) for u, a in enumerate(w)
            )
        ),
        wrong('Rows are missing: with "same" there is a row for each of the n pixels.')(
            whole_rows
        ),
        wrong("A negative column counts from the end in NumPy. Write only if 0 <= j < n.")(
            negative_columns
        ),
        wrong("The middle of K taps is number K//2, as w[1] of three: yours is one off.")(
            lambda w, n: banded(np.append(w, 0), n)
        ),
        wrong("Every tap stands on the diagonal. Tap u belongs u - K//2 columns on.")(
            lambda w, n: np.eye(n) * np.sum(w)
        ),
    ),
    hints=(
        "Row i computes output i. Which pixels does output i see, and through which taps?",
        "Output i sees pixel j through tap u = j - i + K//2, if there is such a tap.",
        "Two loops over i and u; j = i + u - K//2; write only if 0 <= j < n.",
    ),
)


def window_2d(arguments, index):
    """Show which products make the output at this index."""
    x, w, stride = (*arguments, 1)[:3]
    i, j = index[0] * stride, index[1] * stride
    text = products(w, x[i : i + w.shape[0], j : j + w.shape[1]])
    return Window(text, (Panel("x", x, (i, j), w.shape), Panel("w", w)))


CORR2D = Question(
    name="corr2d",
    points=3,
    oracle=correlated,
    cases=cases_2d,
    window=window_2d,
    mutants=(
        wrong(FLIPPED)(lambda x, w, stride: correlated(x, w[::-1, ::-1], stride)),
        wrong(WHOLE)(lambda x, w, stride: correlated(x, w, stride).astype(x.dtype)),
        wrong("You read x[j+v, i+u]. Rows go with i and u and come first: x[i+u, j+v].")(
            swapped_pixels
        ),
        wrong("i and j are swapped in the window: rows go with i, columns with j.")(
            swapped_windows
        ),
        wrong("Height and width of the output are swapped. Height comes from rows.")(
            swapped_size
        ),
        wrong(f"{RANGE[:-1]}, along both axes.")(
            lambda x, w, stride: correlated(x, w, stride)[:-1, :-1]
        ),
        wrong("The last row and column stay 0: the loops stop one window early.")(
            last_left_at_zero
        ),
        wrong("The range counts windows and also walks in strides. Do one of the two.")(
            stride_in_the_bound
        ),
        wrong(OVERWRITTEN)(last_product),
        wrong(EARLY)(first_row_only),
        wrong("Divide, then add 1: (H - KH)//stride + 1, not (H - KH + 1)//stride.")(
            counted_before_dividing
        ),
        wrong("You move the taps by the stride. The window moves: x[i*stride + u, ...].")(
            stride_on_taps
        ),
        wrong("The size is right, but window (i, j) begins at (i*stride, j*stride).")(
            lambda x, w, stride: loops(
                x, w, 1, size_of(x, w, stride), lambda i, j, u, v: (i + u, j + v)
            )
        ),
        wrong("Your windows are centred on a pixel. Here they begin at (i, j)*stride.")(
            lambda x, w, stride: loops(
                x,
                w,
                stride,
                size_of(x, w, stride),
                lambda i, j, u, v: (i + u - w.shape[0] // 2, j + v - w.shape[1] // 2),
            )
        ),
        wrong("The taps are transposed: rows of w go with u, columns with v: w[u, v].")(
            transposed_taps
        ),
        wrong("You count as if the stride were 1: (H - KH)//stride + 1 windows fit.")(
            lambda x, w, stride: loops(
                x, w, stride, size_of(x, w, 1), lambda i, j, u, v: (i + u, j + v)
            )
        ),
        wrong("The width is counted from the height. Columns come from W and KW.")(
            lambda x, w, stride: loops(
                x,
                w,
                stride,
                size_of(x, w, stride)[:1] * 2,
                lambda i, j, u, v: (i + u, j + v),
            )
        ),
        wrong("The stride works on rows only. Window (i, j) begins in column j*stride.")(
            stride_on_rows_only
        ),
        wrong("The stride has no effect: window (i, j) begins at (i*stride, j*stride).")(
            lambda x, w, stride: correlated(x, w)
        ),
        wrong("Windows touch one another: the step is the stride, not the filter's side.")(
            lambda x, w, stride: np.einsum(
                "ijuv,uv->ij",
                sliding_window_view(x, w.shape)[:: w.shape[0], :: w.shape[1]],
                w,
            )
        ),
    ),
    hints=(
        "Stride 1: H - KH + 1 rows of windows, and the window of y[i, j] begins at (i, j).",
        "With a stride: (H - KH)//stride + 1 rows, and the window begins at i*stride.",
        "y[i, j] += w[u, v] * x[i*stride + u, j*stride + v], in four loops.",
    ),
)

CORR2D_FAST = Question(
    name="corr2d_fast",
    points=2,
    oracle=lambda x, w: correlated(x, w),
    cases=cases_fast,
    window=window_2d,
    mutants=(
        wrong(FLIPPED)(lambda x, w: correlated(x, w[::-1, ::-1])),
        wrong("You read x[j+v, i+u]. Rows go with i and u and come first: x[i+u, j+v].")(
            lambda x, w: swapped_pixels(x, w, 1)
        ),
        wrong(OVERWRITTEN)(last_product),
        wrong(EARLY)(first_row_only),
        wrong(f"{RANGE[:-1]}, along both axes.")(lambda x, w: correlated(x, w)[:-1, :-1]),
        wrong("The last row and column stay 0: the loops stop one window early.")(
            last_left_at_zero
        ),
    ),
    hints=(
        "Write the four loops as in plain Python; numba likes loops and arrays.",
        "from numba import njit, and @njit on the line above def.",
    ),
    speed=Speed(
        plain=plain_loop,
        arguments=lambda rng: (rng.normal(size=(120, 160)), rng.normal(size=(5, 5))),
        floor=50,
    ),
)


def window_full(arguments, index):
    """Show which pixels and taps meet at this index."""
    x, w = arguments
    i, j = index
    met = [
        (x[i - u, j - v], weight)
        for (u, v), weight in np.ndenumerate(w)
        if 0 <= i - u < x.shape[0] and 0 <= j - v < x.shape[1]
    ]
    pixels, weights = np.array(met).T
    corner = i - w.shape[0] + 1, j - w.shape[1] + 1
    panels = Panel("x", x, corner, w.shape), Panel("w turned half way", w[::-1, ::-1])
    return Window(products(weights, pixels), panels)


CONVOLVE2D = Question(
    name="convolve2d_full",
    points=2,
    oracle=painted,
    cases=cases_full,
    window=window_full,
    mutants=(
        wrong("This is cross-correlation. In a convolution the filter is turned half way.")(
            lambda x, w: painted(x, np.asarray(w)[::-1, ::-1])
        ),
        wrong("Only one axis is flipped. A half turn flips rows and columns.")(
            one_axis_flipped
        ),
        wrong("You keep only whole windows. Full means H+KH-1 rows: every overlap counts.")(
            whole_windows
        ),
        wrong("A negative index counts from the end in NumPy: ask for 0 <= i-p as well.")(
            negative_taps
        ),
        wrong("One row and column too many: n pixels and K taps overlap n+K-1 times.")(
            lambda x, w: np.pad(painted(x, w), (0, 1))
        ),
        wrong('Your output is as large as x ("same"). Full has H+KH-1 rows.')(
            lambda x, w: painted(x, w)[(w.shape[0] - 1) // 2 :, (w.shape[1] - 1) // 2 :][
                : x.shape[0], : x.shape[1]
            ]
        ),
        wrong("Copies overwrite one another where they overlap. Add them: +=, not =.")(
            lambda x, w: overwritten(x, w)
        ),
    ),
    hints=(
        "Let x have one bright pixel: y is then a copy of w at that place, not flipped.",
        "Every pixel adds its copy of w: y[p+u, q+v] += x[p, q] * w[u, v].",
        "y has H + KH - 1 rows and W + KW - 1 columns and starts at 0.",
    ),
)


def overwritten(x, w):
    """As `painted`, but the last copy wins."""
    y = np.zeros((x.shape[0] + w.shape[0] - 1, x.shape[1] + w.shape[1] - 1))
    for (p, q), pixel in np.ndenumerate(x):
        y[p : p + w.shape[0], q : q + w.shape[1]] = pixel * w
    return y


JOBS = ("nothing", "move right", "box blur", "change to the right", "Laplacian", "sharpen")

FILTER_BANK = Question(
    name="filter_bank",
    points=2,
    oracle=six_filters,
    cases=no_arguments,
    window=lambda arguments, index: Window(f"filter {index[0]}, {JOBS[index[0]]}"),
    mutants=(
        wrong(
            "Filter 1 moves the image to the left. y[i,j] = x[i,j-1] needs the left tap."
        )(lambda: changed_filters(1, six_filters()[1][:, ::-1])),
        wrong("Filter 1 moves the image down. To the right means along j, within a row.")(
            lambda: changed_filters(1, six_filters()[1].T)
        ),
        wrong("The box blur makes the image nine times brighter: divide by 9.")(
            lambda: changed_filters(2, np.ones((3, 3)))
        ),
        wrong("Filter 3 has the wrong sign: right minus left, so the right tap is +1.")(
            lambda: changed_filters(3, -six_filters()[3])
        ),
        wrong("Filter 3 is the plain difference: two taps, +1 and -1, nothing divided.")(
            lambda: changed_filters(3, six_filters()[3] / 2)
        ),
        wrong("That is the Sobel filter. Number 3 looks at one row only, the middle one.")(
            lambda: changed_filters(3, [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
        ),
        wrong("Filter 3 measures change from top to bottom. Put it into the middle row.")(
            lambda: changed_filters(3, six_filters()[3].T)
        ),
        wrong("The Laplacian has the wrong sign: neighbours +1, centre -4.")(
            lambda: changed_filters(4, -six_filters()[4])
        ),
        wrong("This Laplacian has eight neighbours. Use the four that share an edge.")(
            lambda: changed_filters(4, [[1, 1, 1], [1, -8, 1], [1, 1, 1]])
        ),
        wrong("Adding the Laplacian blurs. To sharpen, subtract it: the centre is 1 + 4.")(
            lambda: changed_filters(5, six_filters()[0] + six_filters()[4])
        ),
        wrong("Filter 5 lost the image itself: identity minus Laplacian has the centre 5.")(
            lambda: changed_filters(5, -six_filters()[4])
        ),
    ),
    hints=(
        "One tap at (u, v) copies the pixel at (i+u-1, j+v-1) to (i, j).",
        "Filter 1 needs x[i, j-1]: that is u = 1, v = 0.",
        "Filters add: sharpen = identity - Laplacian, number by number.",
    ),
)


def window_by_hand(arguments, index):
    """Show where to look, and leave the sum to the student."""
    which, i, j = index
    if which == 0:
        panels = window_2d((HOMEWORK_IMAGE, HOMEWORK_FILTER, 2), (i, j)).panels
        return Window(f"the window that begins in row {2 * i}, column {2 * j}", panels)
    words = "what is above 0 in the first map", "the largest of the second map"
    return Window(words[which - 1])


BY_HAND = Question(
    name="homework_by_hand",
    points=2,
    oracle=by_hand,
    cases=no_arguments,
    window=window_by_hand,
    mutants=(
        wrong("You padded the image. Here the filter stays inside: 2 x 2 windows.")(
            lambda: stages(HOMEWORK_IMAGE, HOMEWORK_FILTER, 2, 1)
        ),
        wrong("You moved by 1. The stride is 2: windows begin in rows and columns 0, 2.")(
            lambda: stages(HOMEWORK_IMAGE, HOMEWORK_FILTER)
        ),
        wrong("The minus signs are lost: the taps above and below the centre are -1.")(
            lambda: stages(HOMEWORK_IMAGE, np.abs(HOMEWORK_FILTER), 2)
        ),
        wrong("The numbers are right. The last map is a list of one row too: [[3]].")(
            lambda: (*by_hand()[:2], 3)
        ),
        wrong("The numbers are right. The last map is a list of one row: [[3]], not [3].")(
            lambda: (*by_hand()[:2], [3])
        ),
        wrong(
            "Rows and columns are swapped: the second window is to the right of the first."
        )(lambda: tuple(a.T for a in by_hand())),
        wrong("ReLU did nothing: what is below zero becomes 0.")(
            lambda: (by_hand()[0], by_hand()[0], by_hand()[2])
        ),
        wrong("ReLU keeps the sign out, not the number in: -2 becomes 0, not 2.")(
            lambda: (by_hand()[0], np.abs(by_hand()[0]), by_hand()[2])
        ),
        wrong("You took the mean of the four. Max pooling takes the largest.")(
            lambda: (*by_hand()[:2], by_hand()[1].mean(keepdims=True))
        ),
        wrong("You summed the four. Max pooling takes the largest.")(
            lambda: (*by_hand()[:2], by_hand()[1].sum(keepdims=True))
        ),
    ),
    hints=(
        "Four windows fit: they begin at (0, 0), (0, 2), (2, 0) and (2, 2).",
        "First window: its cross holds 2 above, 2 2 1 in the middle row, 2 below.",
        "The first sum is -2 + 2 + 2 + 1 - 2 = 1.",
    ),
)


def window_homework(arguments, index):
    """Show the pixels behind a number, and the map between."""
    x, w, stride, padding, pool = arguments
    _, a, _ = stages(x, w, stride, padding, pool)
    i, j = index[0] * pool, index[1] * pool
    some = [f"{value:.3g}" for value in a[i : i + pool, j : j + pool].ravel()]
    seen = tuple((pool - 1) * stride + K for K in w.shape)
    return Window(
        f"the largest of {', '.join(some)} after ReLU",
        (
            Panel("x, padded", np.pad(x, padding), (i * stride, j * stride), seen),
            Panel("w", w),
            Panel("after ReLU", a, (i, j), (pool, pool)),
        ),
    )


HOMEWORK = Question(
    name="homework",
    points=3,
    oracle=pipeline,
    cases=cases_homework,
    window=window_homework,
    needs=("course.layers",),
    mutants=(
        wrong("The ReLU is missing: a window of negative numbers must give 0.")(
            lambda x, w, stride, padding, pool: pooled(
                stages(x, w, stride, padding, 1)[0], pool, pool
            )
        ),
        wrong("You flip the filter. A convolution layer does not: it correlates.")(
            lambda x, w, stride, padding, pool: pipeline(
                x, w[::-1, ::-1], stride, padding, pool
            )
        ),
        wrong("The padding has no effect: frame x with zeros first, on all four sides.")(
            lambda x, w, stride, padding, pool: pipeline(x, w, stride, 0, pool)
        ),
        wrong("You pad at the top and left only. Padding goes on all four sides.")(
            padded_on_two_sides
        ),
        wrong("The stride has no effect in the convolution.")(
            lambda x, w, stride, padding, pool: pipeline(x, w, 1, padding, pool)
        ),
        wrong("The pool's windows overlap: its stride is the pool size.")(
            lambda x, w, stride, padding, pool: pooled(
                stages(x, w, stride, padding, 1)[1], pool, 1
            )
        ),
        wrong("The pool walks with the convolution's stride. Its own stride is its size.")(
            lambda x, w, stride, padding, pool: pooled(
                stages(x, w, stride, padding, 1)[1], pool, stride
            )
        ),
        wrong("You pool with the mean. Max pooling takes the largest of each window.")(
            lambda x, w, stride, padding, pool: pooled(
                stages(x, w, stride, padding, 1)[1], pool, pool, np.mean
            )
        ),
        wrong("Pool windows that hang over the edge are left out (the size is floored).")(
            pool_keeps_the_remainder
        ),
        wrong("The third argument of conv2d_forward is the bias. Write stride=, padding=.")(
            lambda x, w, stride, padding, pool: conv2d_forward(
                x[None, None], w[None, None], stride, padding
            )
        ),
        wrong("maxpool2d_forward returns two things. Take the first: y, _ = ...")(layers),
        wrong("Your map has 4 axes, (N, C, H, W). The plane in it is y[0, 0].")(
            lambda x, w, stride, padding, pool: layers(x, w, stride, padding, pool)[0]
        ),
        wrong("You took absolute values. ReLU turns what is below zero into 0.")(
            lambda x, w, stride, padding, pool: pooled(
                np.abs(stages(x, w, stride, padding, 1)[0]), pool, pool
            )
        ),
        wrong("You return the map after ReLU. The pooling is missing.")(
            lambda x, w, stride, padding, pool: stages(x, w, stride, padding, 1)[1]
        ),
    ),
    hints=(
        "The course's layers want x as (N, C, H, W): x[None, None]. w is (F, C, KH, KW).",
        "conv2d_forward(..., stride=..., padding=...), relu_forward, maxpool2d_forward.",
        "maxpool2d_forward returns two things: y and argmax. Return y[0, 0].",
    ),
)


def unmasks(arguments, answer):
    """Say why the two versions agree on this image and filter, if they do."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "Return two arrays: the image and the filter, as in `return x, w`."
    x, w = (np.asarray(a, np.float64) for a in answer)
    if x.ndim != 2 or w.ndim != 2 or not w.size:
        return f"x and w must be 2-D arrays; yours have {x.ndim} and {w.ndim} axes."
    if max(x.size, w.size) > 10_000:
        return "Keep x and w small: 10000 numbers each at most. Two are enough."
    if any(n < K for n, K in zip(x.shape, w.shape, strict=True)):
        return f"w, {w.shape}, does not fit into x, {x.shape}."
    if not ((abs(x) <= 1e6).all() and (abs(w) <= 1e6).all()):
        return "x and w must hold finite numbers, a million at most. Small ones are enough."
    right, flipped = correlated(x, w), correlated(x, w[::-1, ::-1])
    if not np.allclose(right, flipped):
        return None
    if np.array_equal(w, w[::-1, ::-1]):
        return "Your w looks the same after half a turn: flipping it changes nothing."
    if np.ptp(x) == 0:
        return "All pixels of your x are equal: both versions sum the weights of w."
    return f"Both versions give the same here, {right.ravel()[0]:g} in the first window."


UNMASK = Question(
    name="unmask_flip",
    points=1,
    oracle=unmasking,
    cases=no_arguments,
    judge=unmasks,
    mutants=(
        wrong("That is the homework. Its cross is the same after half a turn.")(
            lambda: (HOMEWORK_IMAGE, HOMEWORK_FILTER)
        ),
        wrong("On an image of ones a filter gives the sum of its weights, flipped or not.")(
            lambda: (np.ones((3, 3)), np.array([[1.0, 2.0], [3.0, 4.0]]))
        ),
        wrong("A single tap cannot be flipped. Take a filter with at least two.")(
            lambda: (np.array([[1.0, 2.0]]), np.array([[3.0]]))
        ),
    ),
    hints=(
        "Which filters look the same after half a turn? Yours must not.",
        "Two pixels and two taps in one row are enough.",
    ),
)

QUESTIONS = (
    CORR1D,
    TOEPLITZ,
    CORR2D,
    CORR2D_FAST,
    CONVOLVE2D,
    FILTER_BANK,
    BY_HAND,
    HOMEWORK,
    UNMASK,
)
