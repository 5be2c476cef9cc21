"""The fast loops that linear and the convolutions call: still Python, on register tiles."""
