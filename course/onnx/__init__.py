"""ONNX files: networks that others trained, and ours for others.

    model = course.onnx.load("model.onnx")
    y = model(x)
    course.onnx.save(model, "ours.onnx")

Both need the package onnx, which the course does not install: pip install "onnx>=1.20".
"""

from course.onnx.network import Network
from course.onnx.reading import load
from course.onnx.writing import save

__all__ = ["Network", "load", "save"]
