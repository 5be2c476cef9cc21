"""`course reproduce`: the trainings whose results are recorded, each beside PyTorch.

Both libraries start from the same weights and see the same batches, shuffled and augmented
by the same seed, at the same learning rates. They take turns, epoch by epoch, in one
process, with the same number of threads. The test images are looked at once, at the end.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SMOOTH = 20  # parts of an epoch over which a loss is averaged for the picture


NAMES = (
    "lenet5-mnist",
    "lenet5-fashion-mnist",
    "convnetjs-cifar10",
    "resnet-cifar10",
    "three-layers-cifar10",
)


def add_parsers(subparsers: Any) -> None:
    """Add the verb `reproduce`."""
    verb = subparsers.add_parser(
        "reproduce",
        help="train a network of docs/benchmarks/results.md again, beside PyTorch",
        description="Train what a recorded result reports: ours and PyTorch's, in turns.",
    )
    verb.add_argument("name", choices=NAMES)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--epochs", type=int, help="another number than the record's")
    verb.add_argument("--alone", action="store_true", help="without PyTorch")
    verb.add_argument("--out", type=Path, default=Path("runs/results"), help="folder")
    verb.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Train, write NAME.json and NAME.png, and the page of all results in the folder."""
    from course.data import BadData, DataNotFound

    try:
        result, picture = reproduce(
            chosen.name, chosen.seed, chosen.epochs, beside=not chosen.alone
        )
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print(
            "course reproduce: PyTorch is not installed: add --alone, or install it: "
            'pip install "torch==2.13.0"',
            file=sys.stderr,
        )
        return 2
    except (DataNotFound, BadData, ValueError, FloatingPointError) as error:
        print(f"course reproduce: {error}", file=sys.stderr)
        return 2
    from course.files import write_whole

    stem = chosen.out / f"{chosen.name}-seed{chosen.seed}"
    write_whole(stem.with_suffix(".json"), (json.dumps(result, indent=1) + "\n").encode())
    picture.save(stem.with_suffix(".png"))
    write_whole(chosen.out.with_suffix(".md"), page(chosen.out).encode())
    print(f"written: {stem}.json, {stem}.png, {chosen.out.with_suffix('.md')}")
    missed = [
        f"{what} is {result['ours'][what]:.4g}, demanded {bar:g}"
        for what, bar in result["bars"].items()
        if not _met(what, result["ours"][what], bar)
    ]
    print(*(missed or ["all that is demanded is met"]), sep="\n")
    return int(bool(missed))


def reproduce(name: str, seed: int = 0, epochs: int | None = None, beside: bool = True):
    """Train a recipe, ours and PyTorch's in turns; return the result and its picture.

    The result is what is written as JSON. Raises ValueError for a name that is not there,
    and as `load` and `fit` do.
    """
    from course.bench.report import machine
    from course.bench.rounds import cores, set_all_threads
    from course.recipes import RECIPES
    from course.training import evaluate, fit
    from course.viz.results import side_by_side

    if name not in NAMES:
        raise ValueError(f"there is no result {name!r}; there are {', '.join(NAMES)}")
    recipe = RECIPES[name]
    epochs = recipe.epochs if epochs is None else epochs
    x, t, *tests = recipe.data()
    model = recipe.network(np.random.default_rng(seed))
    other = Other(recipe, model, x, t, seed, epochs) if beside else None
    set_all_threads(threads := cores())
    seconds = []
    mark = time.perf_counter()

    def after_epoch(history: Any) -> None:
        nonlocal mark
        seconds.append(time.perf_counter() - mark)
        said = f"epoch {len(seconds)} of {epochs}: {seconds[-1]:.1f} s"
        said += f", loss {history.train_loss[-1]:.4f}"
        if other is not None:
            other.epoch(len(seconds))
            said += f"; PyTorch {other.seconds[-1]:.1f} s"
            said += f", loss {np.mean(other.losses[-other.per_epoch :]):.4f}"
        print(said, flush=True)
        mark = time.perf_counter()

    history = fit(
        model,
        x,
        t,
        epochs=epochs,
        batch_size=recipe.batch_size,
        optimizer=recipe.optimizer(),
        seed=seed,
        schedule=recipe.schedule,
        augment=recipe.augment,
        after_epoch=after_epoch,
        progress=False,
    )
    found = {"training accuracy": evaluate(model, x, t).accuracy}
    found |= {"test accuracy": evaluate(model, *tests).accuracy}
    result = {
        "name": name,
        "title": recipe.title,
        "text": recipe.text,
        "seed": seed,
        "epochs": epochs,
        "batch size": recipe.batch_size,
        "images": len(x),
        "parameters": sum(a.size for a in model.params.values()),
        "threads": threads,
        "machine": machine(),
        "bars": recipe.bars if epochs == recipe.epochs else {},
        "ours": found | {"seconds": sum(seconds), "seconds per epoch": seconds},
        "loss": _thinned(history.batch_loss, epochs),
    }
    if other is not None:
        result["pytorch"] = other.accuracies(x, t, *tests) | {
            "seconds": sum(other.seconds),
            "seconds per epoch": other.seconds,
        }
        result["pytorch loss"] = _thinned(other.losses, epochs)
    print(_line(result))
    picture = side_by_side(result)
    return result | {"alt": picture.alt}, picture


class Other:
    """The same training in PyTorch, an epoch at a time."""

    def __init__(
        self, recipe: Any, model: Any, x: np.ndarray, t: np.ndarray, seed: int, epochs: int
    ):
        import torch

        from course.bench.twin import twin

        self.recipe, self.x, self.t, self.seed = recipe, x, t, seed
        self.model = twin(model)
        self.per_epoch = -(-len(x) // recipe.batch_size)
        self.steps = epochs * self.per_epoch
        self.losses: list[float] = []
        self.seconds: list[float] = []
        left = {  # weight decay leaves them alone
            f"{name}.{key}" for name, leaf in model.leaves() for key in leaf.undecayed
        }
        groups: tuple[list, list] = ([], [])
        for name, parameter in self.model.named_parameters():
            groups[name in left].append(parameter)
        self.optimizer = recipe.theirs(
            torch.optim,
            [
                {"params": groups[0], "weight_decay": recipe.weight_decay},
                {"params": groups[1], "weight_decay": 0.0},
            ],
        )
        self.peak = self.optimizer.param_groups[0]["lr"]

    def epoch(self, number: int) -> None:
        """Train for one epoch, the batches of which are those of `fit`."""
        import torch

        from course.training import batches

        recipe, mark = self.recipe, time.perf_counter()
        order = batches(
            len(self.x), recipe.batch_size, np.random.default_rng([self.seed, number])
        )
        for k, images in enumerate(order, 1):
            x = self.x[images]
            if recipe.augment is not None:
                x = recipe.augment(x, np.random.default_rng([self.seed, number, k]))
            if recipe.schedule is not None:
                rate = self.peak * recipe.schedule(len(self.losses) / self.steps)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
            self.optimizer.zero_grad()
            scores = self.model(torch.from_numpy(x))
            loss = torch.nn.functional.cross_entropy(
                scores, torch.from_numpy(self.t[images])
            )
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
        self.seconds.append(time.perf_counter() - mark)

    def accuracies(self, x: np.ndarray, t: np.ndarray, *tests: np.ndarray) -> dict:
        """Return the share of right answers on both sets of images."""
        return {
            "training accuracy": self._right(x, t),
            "test accuracy": self._right(*tests),
        }

    def _right(self, x: np.ndarray, t: np.ndarray) -> float:
        import torch

        self.model.eval()
        with torch.no_grad():
            parts = [
                self.model(torch.from_numpy(x[k : k + 500])) for k in range(0, len(x), 500)
            ]
        return float((torch.cat(parts).argmax(1).numpy() == t).mean())


def _met(what: str, value: float, bar: float) -> bool:
    """Say whether a figure is what is demanded."""
    return value <= bar if what == "seconds" else value >= bar


def _thinned(losses: list[float], epochs: int) -> list[float]:
    """Return the mean of the losses over each of SMOOTH parts of every epoch."""
    parts = np.array_split(np.array(losses), min(len(losses), SMOOTH * epochs))
    return [round(float(part.mean()), 5) for part in parts]


def _line(result: dict) -> str:
    """Return the result in one line for the terminal."""
    ways = {"ours": result["ours"], "PyTorch": result.get("pytorch")}
    return "; ".join(
        f"{way}: test accuracy {found['test accuracy']:.2%}, training accuracy "
        f"{found['training accuracy']:.2%}, {found['seconds']:.0f} s"
        for way, found in ways.items()
        if found
    )


def page(folder: Path) -> str:
    """Return all the results in the folder as one page of Markdown."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    lines = [
        "# Results",
        "",
        *__doc__.split("\n\n", 1)[1].strip().splitlines(),
        "",
        "| result | seed | epochs | parameters | test accuracy | PyTorch's | training "
        "accuracy | PyTorch's | seconds | PyTorch's | times as fast | demanded |",
        "|---" * 12 + "|",
    ]
    for result in results:
        ours, theirs = result["ours"], result.get("pytorch")
        ratio = ""
        if theirs:
            pairs = zip(theirs["seconds per epoch"], ours["seconds per epoch"], strict=True)
            ratio = f"{np.median([b / a for b, a in pairs]):.2f}"
        cells = [f"[{result['title']}](#{result['name']}-seed-{result['seed']})"]
        cells += [str(result["seed"]), str(result["epochs"]), str(result["parameters"])]
        for what, form in (
            ("test accuracy", ".2%"),
            ("training accuracy", ".2%"),
            ("seconds", ".1f"),
        ):
            cells += [
                format(way[what], form) if way else "not run" for way in (ours, theirs)
            ]
        bars = [
            (f"{what} at most {bar:g}" if what == "seconds" else f"{what} {bar:.1%}")
            + (": met" if _met(what, ours[what], bar) else ": **not met**")
            for what, bar in result["bars"].items()
        ]
        lines.append(f"| {' | '.join([*cells, ratio, '; '.join(bars)])} |")
    for result in results:
        about = result["machine"]
        lines += [
            "",
            f"## {result['name']}, seed {result['seed']}",
            "",
            result["text"],
            "",
            f"    python3 run.py reproduce {result['name']} --seed {result['seed']}",
            "",
            f"{about['date']}, {about['processor']}, {result['threads']} threads; numba "
            f"{about['numba']}, numpy {about['numpy']}, torch {about['torch']}. Batches of "
            f"{result['batch size']}, {result['images']} images to learn from.",
            "",
            f"![{result['alt']}]({folder.name}/{result['name']}-seed{result['seed']}.png)",
        ]
    return "\n".join(lines) + "\n"
