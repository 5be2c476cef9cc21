"""Convolutional networks from the first loop to the GPU, on loops you can read.

`import course` compiles nothing and imports nothing heavy. A notebook begins with

    from course import check
    from course.layers import conv2d_forward
"""

__version__ = "0.1.0"
__all__ = ["check", "hint", "progress"]

_PARTS = "data", "graph", "layers", "losses", "onnx", "optimizers", "viz", "zoo"


def __getattr__(name: str):
    """Load `check`, `hint`, `progress` and the parts when they are first asked for."""
    from importlib import import_module

    if name in __all__:
        return getattr(import_module("course.exercises.check"), name)
    if name in _PARTS:  # course.onnx.load(...) after `import course` alone
        return import_module(f"course.{name}")
    raise AttributeError(f"module 'course' has no attribute {name!r}")
