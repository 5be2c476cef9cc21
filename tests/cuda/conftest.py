"""Which of the tests of CUDA comes last."""


def pytest_collection_modifyitems(items):
    """Count the kernels when all other tests have run theirs."""
    items.sort(key=lambda item: item.path.name == "test_every_kernel.py")
