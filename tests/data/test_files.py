"""Files of others: where they are looked for, what is refused, how they are downloaded."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace

import pytest

from course.data import BadData, DataNotFound
from course.data.files import Source, download, find, locate

CONTENTS = {"a.bin": b"first file" * 100, "b.bin": b"second" * 50, "c.bin": b"3"}


@pytest.fixture
def folder(tmp_path):
    """The folder `small` with three files, which the server has as /small/."""
    there = tmp_path / "files" / "small"
    there.mkdir(parents=True)
    for file, data in CONTENTS.items():
        (there / file).write_bytes(data)
    return there


@pytest.fixture
def source():
    """A source of these files, at no address."""
    sha256 = {file: hashlib.sha256(data).hexdigest() for file, data in CONTENTS.items()}
    return Source("small", (), sha256, ())


@pytest.fixture
def theirs(folder, cache, monkeypatch):
    """The folder, found by COURSE_DATA; the cache is empty."""
    monkeypatch.setenv("COURSE_DATA", str(folder.parent))
    return folder


def located(source):
    """The contents of all files of the source."""
    return {file: locate(source, file).read_bytes() for file in source.sha256}


def kept(cache):
    """The names of the files in the cache."""
    return sorted(path.name for path in (cache / "data" / "small").iterdir())


# --- on this machine --------------------------------------------------------------------


def test_files_under_course_data_are_used(source, theirs, cache):
    assert located(source) == CONTENTS
    assert find(source, "a.bin") == theirs / "a.bin"
    assert not cache.exists()


def test_a_folder_may_have_another_name_and_the_first_counts(source, theirs):
    other = replace(source, folders=("other", "small"))
    assert find(other, "a.bin") == theirs / "a.bin"
    first = theirs.with_name("other")
    first.mkdir()
    (first / "a.bin").write_bytes(CONTENTS["a.bin"])
    assert find(other, "a.bin") == first / "a.bin"
    assert find(other, "b.bin") == theirs / "b.bin"


@pytest.mark.parametrize(
    "damage, says",
    [
        pytest.param(lambda data: data[:-1], "(999 bytes) has SHA-256", id="truncated"),
        pytest.param(
            lambda data: data[:9] + b"?" + data[10:], "(1000 bytes)", id="altered"
        ),
        pytest.param(lambda data: b"", "(0 bytes) has SHA-256 e3b0c442", id="empty"),
        pytest.param(lambda data: CONTENTS["b.bin"], "is a copy of b.bin", id="doubled"),
    ],
)
def test_a_wrong_file_under_course_data_is_named_with_both_hashes(
    source, theirs, damage, says
):
    path = theirs / "a.bin"
    path.write_bytes(damage(path.read_bytes()))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BadData) as error:
        locate(source, "a.bin")
    for part in (str(path), says, found, source.sha256["a.bin"], "replace it"):
        assert part in str(error.value)


# --- downloads --------------------------------------------------------------------------


def test_a_download_is_kept_and_not_repeated(source, folder, server, cache):
    there = replace(source, mirrors=(server.url + "small/",))
    assert located(there) == CONTENTS
    assert kept(cache) == sorted(CONTENTS)
    assert located(source) == CONTENTS  # has no address: only the cache can have it


def test_a_damaged_file_in_the_cache_is_replaced(source, folder, server, cache):
    there = replace(source, mirrors=(server.url + "small/",))
    path = locate(there, "a.bin")
    path.write_bytes(CONTENTS["a.bin"][:-1] + b"?")
    assert find(there, "a.bin") is None
    assert located(there) == CONTENTS


def test_the_second_address_is_asked_where_the_first_fails(source, folder, server, cache):
    wrong = folder.with_name("wrong")
    wrong.mkdir()
    for file in CONTENTS:
        (wrong / file).write_bytes(b"<html>please sign in</html>")
    failing = (server.url + name for name in ("none/", "wrong/", "cut/small/"))
    mirrors = "http://127.0.0.1:9/", *failing, server.url + "small/"
    assert located(replace(source, mirrors=mirrors)) == CONTENTS
    assert kept(cache) == sorted(CONTENTS)


def test_each_address_that_failed_is_named_with_its_reason(source, folder, server, cache):
    wrong = folder.with_name("wrong")
    wrong.mkdir()
    (wrong / "a.bin").write_bytes(b"<html>sign in</html>")
    mirrors = "http://127.0.0.1:9/", f"{server.url}none/", f"{server.url}wrong/"
    with pytest.raises(DataNotFound) as error:
        locate(replace(source, mirrors=mirrors), "a.bin")
    first, refused, missing, wrong, *_ = str(error.value).splitlines()
    assert first == "small: a.bin is not on this machine and cannot be downloaded."
    assert "127.0.0.1:9/a.bin" in refused and "no connection" in refused
    assert "none/a.bin" in missing and "404" in missing
    assert "wrong/a.bin" in wrong and "does not match the known hash" in wrong


def test_a_connection_that_breaks_leaves_no_file(source, folder, server, cache):
    with pytest.raises(DataNotFound):
        locate(replace(source, mirrors=(server.url + "cut/small/",)), "a.bin")
    assert kept(cache) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_download_leaves_no_file_under_its_name(source, folder, server, cache):
    slow = replace(source, mirrors=(server.url + "slow/small/",))
    code = f"from course.data.files import Source, locate; locate({slow!r}, 'a.bin')"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        assert server.half_sent.wait(30)
        time.sleep(0.2)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert "a.bin" not in kept(cache)
    assert located(replace(source, mirrors=(server.url + "small/",))) == CONTENTS


# --- archives ---------------------------------------------------------------------------


def packed(members):
    """A .tar.gz with these (name, contents); contents None is a link to /etc/passwd."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            if data is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data or b""))
    return memory.getvalue()


@pytest.fixture
def archived(source, server, tmp_path):
    """A function that puts an archive on the server and returns the source that has it."""

    def serve(data):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / "small.tar.gz").write_bytes(data)
        archive = "small.tar.gz", "md5:" + hashlib.md5(data).hexdigest()
        mirrors = (server.url,)
        return replace(source, mirrors=mirrors, archive=archive, folders=("inside",))

    return serve


INSIDE = [(f"inside/{file}", data) for file, data in CONTENTS.items()]


def test_of_an_archive_only_the_named_files_are_unpacked(archived, source, cache):
    others = ("inside/readme.html", b"?"), ("../../escaped", b"?"), ("inside/link", None)
    there = archived(packed([*others, *INSIDE, ("a.bin", b"of another folder")]))
    assert located(there) == CONTENTS
    assert kept(cache) == sorted(CONTENTS)  # the archive is gone
    assert sorted(path.name for path in cache.iterdir()) == ["data"]
    assert located(source) == CONTENTS


@pytest.mark.parametrize(
    "members, says",
    [
        pytest.param(INSIDE[:2], "inside/c.bin", id="a file missing"),
        pytest.param([*INSIDE[:2], ("inside/c.bin", b"4")], "c.bin has SHA", id="altered"),
        pytest.param([*INSIDE, INSIDE[0], ("inside/a.bin", b"")], "a.bin has", id="twice"),
        pytest.param([*INSIDE[:2], ("inside/c.bin", None)], "archive it should", id="link"),
    ],
)
def test_an_archive_without_the_right_files_is_refused(archived, cache, members, says):
    with pytest.raises(DataNotFound) as error:
        locate(archived(packed(members)), "c.bin")
    assert says in str(error.value).splitlines()[1]
    assert set(kept(cache)) <= {"a.bin", "b.bin"}


def test_what_is_no_archive_is_refused(archived, cache):
    with pytest.raises(DataNotFound, match="it is not the archive it should be"):
        locate(archived(b"\x1f\x8bnot gzip"), "a.bin")
    assert kept(cache) == []


def test_an_archive_with_another_hash_is_not_opened(archived, folder, cache):
    there = archived(packed(INSIDE))
    wrong = replace(there, archive=("small.tar.gz", "md5:" + "0" * 32))
    with pytest.raises(DataNotFound, match="does not match the known hash"):
        download(wrong, "a.bin")
    assert kept(cache) == []
