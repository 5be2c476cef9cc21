"""One function per figure: arrays in, a `Picture` out, no global state."""

from course.viz.base import Picture, figure, interactive

__all__ = ["Picture", "figure", "interactive"]
