"""`course bench lenet5`: a training epoch of LeNet-5, here and in PyTorch."""

import argparse
import json
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from course.bench.rounds import in_turns
from course.files import write_whole

IMAGES = 60_000  # in an epoch of MNIST
BATCHES = 20  # in one timed block


def add_parsers(subparsers: Any) -> None:
    """Add the verb `bench`."""
    verb = subparsers.add_parser("bench", help="measure the course beside PyTorch")
    verb.add_argument("what", choices=["lenet5"])
    verb.add_argument("--batch-size", type=int, default=32)
    verb.add_argument("--rounds", type=int, default=15)
    verb.add_argument("--json", type=Path, help="also write the numbers to this file")
    verb.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Measure, print a table, and write the JSON file if one is asked for."""
    try:
        import torch
    except ImportError:
        print('course bench needs PyTorch: pip install "torch==2.13.0"', file=sys.stderr)
        return 2
    from course.device import get_threads

    torch.set_num_threads(get_threads())
    times = in_turns(chosen.rounds, **epoch_blocks(chosen.batch_size))
    epoch = {
        name: values * IMAGES / (BATCHES * chosen.batch_size)
        for name, values in times.items()
    }
    report = {
        "what": f"LeNet-5 training, batch {chosen.batch_size}, float32, images in memory",
        "date": date.today().isoformat(),
        "threads": get_threads(),
        "machine": f"{platform.system()} {platform.machine()} {processor()}",
        "torch": torch.__version__,
        "rounds": chosen.rounds,
        "seconds_per_epoch": {name: float(np.median(v)) for name, v in epoch.items()},
        "torch_time_over_ours": float(np.median(times["pytorch"] / times["course"])),
    }
    print(f"{report['what']}, {report['threads']} threads, {report['machine']}")
    for name, value in report["seconds_per_epoch"].items():
        low, high = np.percentile(epoch[name], [25, 75])
        print(f"  {name:8s} {value:6.2f} s per epoch (middle half {low:.2f} to {high:.2f})")
    print(f"  PyTorch's time / ours: {report['torch_time_over_ours']:.2f}")
    if chosen.json:
        write_whole(chosen.json, (json.dumps(report, indent=2) + "\n").encode())
    return 0


def epoch_blocks(batch_size: int) -> dict[str, Any]:
    """Return the same few training batches, by the course and by PyTorch eager."""
    import torch
    from torch import nn

    from course.losses import softmax_cross_entropy
    from course.optimizers import SGD
    from course.zoo.lenet5 import lenet5

    rng = np.random.default_rng(0)
    x = rng.random((BATCHES, batch_size, 1, 28, 28), np.float32)
    t = rng.integers(10, size=(BATCHES, batch_size))
    mine, optimizer = lenet5(rng=rng), SGD(0.01, 0.9)
    theirs = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, 10),
    )
    sgd = torch.optim.SGD(theirs.parameters(), 0.01, 0.9)
    tx, tt = torch.tensor(x), torch.tensor(t)

    def course() -> None:
        for k in range(BATCHES):
            _, dscores = softmax_cross_entropy(mine(x[k]), t[k])
            mine.backward(dscores)
            optimizer.step(mine)

    def pytorch() -> None:
        for k in range(BATCHES):
            sgd.zero_grad()
            nn.functional.cross_entropy(theirs(tx[k]), tt[k]).backward()
            sgd.step()

    return {"course": course, "pytorch": pytorch}


def processor() -> str:
    """Return the name of the processor that Numba compiles for."""
    from llvmlite.binding import get_host_cpu_name

    return get_host_cpu_name()
