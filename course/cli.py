"""The `course` command: one verb for each thing that is done from a terminal.

Each verb's module offers `add_parsers(subparsers)` and sets `run`, a function from the
parsed arguments to an exit code. They are imported here, not by `import course`.
"""

import argparse
import sys
from importlib import import_module

VERBS = (
    "course.train",
    "course.reproduce",
    "course.grading.command",
    "course.doctor",
    "course.warmup",
    "course.notebooks",
    "course.bench.command",
)
TWO_WORDS = ("grade merge", "grade collect", "grade gradescope-zip")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    whole = argparse.ArgumentParser(
        "course", description="Convolutional networks, from the first loop to the GPU."
    )
    subparsers = whole.add_subparsers(required=True, metavar="VERB", title="verbs")
    for module in VERBS:
        import_module(module).add_parsers(subparsers)
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; return its exit code."""
    for stream in sys.stdout, sys.stderr:  # a name in any script, on any terminal
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if " ".join(words[:2]) in TWO_WORDS:
        words[:2] = [" ".join(words[:2])]
    chosen = parser().parse_args(words)
    try:
        return chosen.run(chosen)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
