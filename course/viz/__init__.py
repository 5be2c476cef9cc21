"""One function per figure: arrays in, a `Picture` out, no global state."""

from course.viz.base import Picture, figure, interactive
from course.viz.threads import threads

__all__ = ["Picture", "architecture", "figure", "interactive", "threads"]


def __getattr__(name: str):
    """Load `architecture`, which needs the layers, when it is first asked for."""
    if name == "architecture":
        from course.viz.networks import architecture

        return architecture
    raise AttributeError(f"module 'course.viz' has no attribute {name!r}")
