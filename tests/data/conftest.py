import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no COURSE_DATA."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("COURSE_CACHE", str(folder))
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return folder
