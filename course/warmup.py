"""`course warmup`: compile every loop of the course now, so that no lesson waits for it.

Each layer, loss and optimizer runs once on a small array, in one process a core. What is
compiled is kept (`course.compiled`): a second run finds all there.
"""

import argparse
import gc
import inspect
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import numpy as np
from numba import config

import course.compiled
import course.layers as L
from course import losses, optimizers, regularization
from course.compiled import FOLDER, Cache, user_cache
from course.training import evaluate
from course.vision import filters
from course.zoo.lenet5 import lenet5

IMAGES, ROWS, SIGNALS = (3, 4, 7, 6), (5, 12), (2, 4, 9)
WIDE = 1, 2, 2, 64  # a row of windows of two pixels fills a vector of any machine


def numbers(*shape: int, dtype: Any) -> np.ndarray:
    """Return random numbers, the same every time."""
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def layer(kind: type, *arguments: Any, x: Any = IMAGES, **keywords: Any) -> Callable:
    """Return what runs a layer, forward and backward, on x of the given shape.

    A tuple of shapes is for a layer of several inputs.
    """

    def run(dtype: Any) -> None:
        new = {"rng": np.random.default_rng(0), "dtype": dtype}
        known = inspect.signature(kind).parameters.keys() & new
        made = kind(*arguments, **keywords, **{name: new[name] for name in known})
        several = isinstance(x[0], tuple)
        arrays = tuple(numbers(*shape, dtype=dtype) for shape in (x if several else (x,)))
        for training in (True, False):
            made.training = training
            y = made.forward(arrays if several else arrays[0])
            made.backward(np.ones_like(y))

    return run


def loss(function: Callable, *targets: Any) -> Callable:
    """Return what runs a loss on scores (4, 3) and each of the targets."""

    def run(dtype: Any) -> None:
        scores = losses.log_softmax(numbers(4, 3, dtype=dtype))
        for target in targets:
            if target.dtype.kind == "f":
                target = target.astype(dtype)
            function(scores, target)

    return run


def optimizer(kind: type, **keywords: Any) -> Callable:
    """Return what runs a step of an optimizer."""

    def run(dtype: Any) -> None:
        one = L.Linear(3, 2, rng=np.random.default_rng(0), dtype=dtype)
        one.backward(one.forward(numbers(4, 3, dtype=dtype)))
        kind(**keywords).step([one])

    return run


def regularizers(dtype: Any) -> None:
    """Run the penalties, the largest norm and the clipping."""
    one = L.Linear(3, 2, rng=np.random.default_rng(0), dtype=dtype)
    one.backward(one.forward(numbers(4, 3, dtype=dtype)))
    regularization.L2(0.1).penalty([one])
    regularization.L2(0.1).add_gradients([one])
    regularization.MaxNorm(0.1).project([one])
    regularization.clip_norm([one], 0.1)


def training(dtype: Any) -> None:
    """Run a step of LeNet-5 that is large enough for all threads, and evaluate it."""
    x, t = numbers(64, 1, 28, 28, dtype=dtype), np.arange(64) % 10
    model = lenet5(rng=np.random.default_rng(0), dtype=dtype)
    _, dscores = losses.softmax_cross_entropy(model.forward(x), t)
    model.backward(dscores)
    optimizers.SGD(0.1, 0.9).step(model.layers)
    evaluate(model, x, t)


def images(dtype: Any) -> None:
    """Run the classical filters, draw a glyph and shapes, and augment these."""
    from course.data import load
    from course.data.glyphs import TEST_FONTS, draw
    from course.vision.augmentation import Augment, Color, Flip

    filters.corr2d(numbers(5, 5, dtype=dtype), numbers(3, 3, dtype=dtype))
    filters.convolve2d(numbers(5, 5, dtype=dtype), numbers(3, 3, dtype=dtype))
    draw(TEST_FONTS[:1], 1, [0])
    x = load("shapes", train=1, test=1).x_train.astype(dtype)
    Augment(Flip(), Color(0.1))(x, np.random.default_rng(0))


def history(dtype: Any) -> None:
    """Run the machines of the past."""
    from course.history.adaline import Adaline
    from course.history.madaline import Madaline
    from course.history.neocognitron import bell, c_cells, s_cells
    from course.history.perceptron import Perceptron

    rng, x = np.random.default_rng(0), numbers(4, 3, dtype=dtype)
    signs = np.array([1, -1, 1, -1], dtype)
    Perceptron(3, dtype=dtype).fit(x, np.maximum(signs, 0)[:, None], epochs=1)
    Adaline(3, dtype=dtype).fit(x, signs[:, None], epochs=1)
    Madaline(3, rng=rng, dtype=dtype).fit(x, signs, epochs=1)
    w, one = numbers(2, 1, 3, 3, dtype=dtype), np.ones(2, dtype)
    y, _ = s_cells(numbers(1, 1, 7, 7, dtype=dtype), w, one, bell(3, 1).astype(dtype), 2.0)
    c_cells(y, bell(3, 1).astype(dtype))


LABELS = np.arange(4) % 3
SHARES = np.full((4, 3), 1 / 3)

# What takes longest comes first, so that the processes end together. Layers that share
# loops stand in one line, so that no two processes compile the same loop.
WORKS: dict[str, tuple[Callable, ...]] = {
    "convolution": (
        layer(L.Conv2d, 4, 6, 3, padding=1),
        layer(L.Conv2d, 4, 6, 3, stride=2, groups=2),
        layer(L.Conv2d, 4, 4, 3, padding=1, groups=4, x=(2, 4, 20, 20)),
        layer(L.Conv2d, 4, 4, 3, padding=1, groups=4),
        layer(L.Conv2d, 4, 4, 3, stride=2, groups=4),
        layer(L.Conv2d, 4, 6, 1),
        layer(L.Linear, 12, 5, x=ROWS),
        layer(L.Linear, 200, 5, x=(5, 200)),
        layer(L.Linear, 12, 5, x=(1, 12)),
        layer(L.Conv1d, 4, 6, 3, x=SIGNALS),
        layer(L.ConvTranspose2d, 4, 6, 3, stride=2),
        layer(L.LocallyConnected2d, 4, 3, (7, 6), 3),
        training,
    ),
    "Winograd": (layer(L.Conv2d, 64, 64, 3, padding=1, x=(2, 64, 16, 16)),),
    "up-sampling": (
        layer(L.Upsample, 2, x=WIDE),
        layer(L.Upsample, 2, "bilinear"),
    ),
    "batch norm": (layer(L.BatchNorm2d, 4), layer(L.BatchNorm1d, 12, x=ROWS)),
    "max pooling": (layer(L.MaxPool2d, 2, x=WIDE), layer(L.MaxPool2d, 3, 2, padding=1)),
    "mean pooling": (layer(L.AvgPool2d, 2, x=WIDE), layer(L.AvgPool2d, 3, 2, padding=1)),
    "L2 pooling": (
        layer(L.LPPool2d, 2, 2, x=WIDE),
        layer(L.LPPool2d, 2, 2),
        layer(L.Subsampling2d, 4),
    ),
    "global pooling": (layer(L.GlobalAvgPool2d), layer(L.GlobalMaxPool2d)),
    "dropout": (layer(L.Dropout), layer(L.Dropout2d)),
    "GELU": (layer(L.GELU), layer(L.GELU, "tanh")),
    "ELU": (layer(L.ELU),),
    "sigmoid": (layer(L.Sigmoid),),
    "SiLU": (layer(L.SiLU),),
    "softplus": (layer(L.Softplus),),
    "tanh": (layer(L.Tanh),),
    "softmax": (layer(L.Softmax), layer(L.Softmax, -1)),
    "log-softmax": (layer(L.LogSoftmax), layer(L.LogSoftmax, -1)),
    "ReLU": (layer(L.ReLU), layer(L.LeakyReLU)),
    "threads": (layer(L.ReLU, x=(512, 512)),),
    "PReLU": (layer(L.PReLU, 4),),
    "maxout": (layer(L.Maxout, 2),),
    "layer norm": (layer(L.LayerNorm, (7, 6)),),
    "group norm": (layer(L.GroupNorm, 2, 4),),
    "instance norm": (layer(L.InstanceNorm2d, 4, affine=True),),
    "local response norm": (layer(L.LocalResponseNorm, 3),),
    "cross-entropy": (
        loss(losses.softmax_cross_entropy, LABELS, SHARES),
        loss(losses.perceptron_loss, LABELS),
    ),
    "hinge": (loss(losses.multiclass_hinge, LABELS),),
    "KL divergence": (loss(losses.kl_divergence, SHARES),),
    "squared error": (loss(losses.mean_squared_error, SHARES),),
    "binary cross-entropy": (loss(losses.binary_cross_entropy_with_logits, SHARES),),
    "optimizers": (
        optimizer(optimizers.SGD, learning_rate=0.1, momentum=0.9),
        optimizer(optimizers.Adagrad),
        optimizer(optimizers.RMSprop),
        optimizer(optimizers.Adadelta),
        optimizer(optimizers.Adam),
        regularizers,
    ),
    "history": (history,),
    "no loops": (
        layer(L.Concat, x=(IMAGES, IMAGES)),
        layer(L.ResidualSum, x=(IMAGES, IMAGES)),
    ),
    "images": (images,),
}


def run_one(name: str, dtype: str) -> int:
    """Run one work in this process; return how many functions had to be compiled."""
    before = Cache.misses
    for work in WORKS[name]:
        work(np.dtype(dtype))
    return Cache.misses - before


def _start() -> None:
    """Prepare a process of the pool."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # the first process says so
    course.compiled.announce = False  # the bar says it
    gc.disable()  # a tenth of the time, for a process that ends soon


def warm(dtypes: list[str], processes: int) -> int:
    """Compile everything for these types; return how many functions were not there yet."""
    from tqdm import tqdm

    jobs = [(name, dtype) for dtype in dtypes for name in WORKS]
    missing = 0
    with (
        ProcessPoolExecutor(processes, get_context("spawn"), _start) as pool,
        tqdm(total=len(jobs), unit="", desc="compiling") as bar,
    ):
        futures = {pool.submit(run_one, *job): job for job in jobs}
        try:
            for future in as_completed(futures):
                missing += future.result()
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)
    return missing


def main(chosen: argparse.Namespace) -> int:
    """Compile everything; return 0, or 2 if it could not be kept."""
    if FOLDER is None:
        print(
            f"course warmup: {user_cache()} cannot be written, so that nothing can be "
            "kept; set COURSE_CACHE to a folder that you may write",
            file=sys.stderr,
        )
        return 2
    start = time.perf_counter()
    dtypes = ["float32", "float64"] if chosen.all else ["float32"]
    missing = warm(dtypes, chosen.processes)
    seconds = time.perf_counter() - start
    print(
        f"{missing} loops compiled in {seconds:.1f} s and kept in {FOLDER}"
        if missing
        else f"every loop was there already, in {FOLDER}"
    )
    return 0


def add_parsers(subparsers: Any) -> None:
    """Add the verb `warmup`."""
    verb = subparsers.add_parser(
        "warmup",
        help="compile every loop now, so that no lesson waits for it",
        description=__doc__.partition("\n")[0],
    )
    verb.add_argument("--all", action="store_true", help="for float64 too")
    verb.add_argument(
        "--processes", type=int, default=config.NUMBA_DEFAULT_NUM_THREADS, metavar="COUNT"
    )
    verb.set_defaults(run=main)
