"""Measurements beside other libraries, side by side in one run."""
