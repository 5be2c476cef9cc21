"""Convolutional networks from the first loop to the GPU, on loops you can read.

`import course` compiles nothing and imports nothing heavy. A notebook begins with

    from course import check
    from course.layers import conv2d_forward
"""

__version__ = "0.1.0"
__all__ = ["check", "hint", "progress"]


def __getattr__(name: str):
    """Load `check`, `hint` and `progress` when they are first asked for."""
    if name in __all__:
        from course.exercises import check as module

        return getattr(module, name)
    raise AttributeError(f"module 'course' has no attribute {name!r}")
