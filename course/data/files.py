"""Files that somebody else made: found on this machine, or downloaded once; and checked.

A file is looked for as COURSE_DATA/<folder>/<file>, then in the user's cache, and is then
downloaded into the cache. Wherever it lies, its SHA-256 must be the makers' file's.
"""

import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from course.compiled import user_cache
from course.data.base import BadData, DataNotFound
from course.files import write_whole

TIMEOUT = 10  # seconds without an answer until the next address is tried


@dataclass(frozen=True)
class Source:
    """Files that belong together, and where they can be had.

    Attributes
    ----------
    name : of the set, and of its folder in the cache
    classes : the name of each class
    sha256 : of each file
    mirrors : addresses of folders that have the files, or the archive
    archive : name and hash of a .tar.gz that has the files in a folder, if they come so
    folders : what their folder may be called under COURSE_DATA, if not only `name`; the
        first is the folder in the archive
    """

    name: str
    classes: tuple[str, ...]
    sha256: dict[str, str]
    mirrors: tuple[str, ...]
    archive: tuple[str, str] | None = None
    folders: tuple[str, ...] = ()


def locate(source: Source, file: str) -> Path:
    """Return the path of the file, which is downloaded if need be.

    Raises BadData for a wrong file under COURSE_DATA, DataNotFound if there is none.
    """
    return find(source, file) or download(source, file)


def places(source: Source, file: str) -> list[Path]:
    """Return where the file may be, best first; the last is where a download goes."""
    chosen = os.environ.get("COURSE_DATA")
    names = (source.folders or (source.name,)) if chosen else ()
    theirs = [Path(chosen or "", name, file) for name in names]
    return [*theirs, user_cache() / "data" / source.name / file]


def find(source: Source, file: str) -> Path | None:
    """Return the path of the file on this machine, or None.

    A wrong file under COURSE_DATA raises BadData: somebody put it there. A wrong file in
    the cache counts as absent, and a download replaces it.
    """
    *theirs, ours = places(source, file)
    for path in theirs:
        if path.is_file():
            found = _sha256(path.read_bytes())
            if found != source.sha256[file]:
                raise BadData(
                    f"{path} {_wrong(source, path, found)}, expected "
                    f"{source.sha256[file]}: replace it by the makers' file, or remove it"
                )
            return path
    right = ours.is_file() and _sha256(ours.read_bytes()) == source.sha256[file]
    return ours if right else None


def _sha256(data: bytes) -> str:
    """Return the SHA-256 of the bytes of a file."""
    return hashlib.sha256(data).hexdigest()


def _wrong(source: Source, path: Path, found: str) -> str:
    """Say what a wrong file is: one of the others, or so many bytes with this SHA-256."""
    for other, right in source.sha256.items():
        if found == right:
            return f"is a copy of {other}: it has SHA-256 {found}"
    return f"({path.stat().st_size} bytes) has SHA-256 {found}"


def download(source: Source, file: str) -> Path:
    """Fetch the file into the cache, from the first address that has it; return its path.

    pooch writes to a temporary name, checks the hash, and only then gives the file its
    own name. Raises DataNotFound if no address has it.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")  # the progress bar says what is going on
    path = places(source, file)[-1]
    name, known = source.archive or (file, source.sha256[file])
    said = []
    for mirror in source.mirrors:
        try:
            pooch.retrieve(
                mirror + name,
                known_hash=known,
                fname=name,
                path=path.parent,
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT),
            )
            if source.archive:
                _unpack(source, path.with_name(name))
            return path
        except (OSError, ValueError) as error:  # no connection; not the right file
            said.append(f"  {mirror}{name}: {_reason(error)}")
    raise DataNotFound(_absent(source, file, said))


def _unpack(source: Source, archive: Path) -> None:
    """Put the files of the source beside the archive, each if it is right; remove that.

    Nothing else in the archive is unpacked, and no name in it decides where a file goes.
    """
    try:
        with tarfile.open(archive) as tar:
            for file, right in source.sha256.items():
                member = tar.extractfile(f"{source.folders[0]}/{file}")
                data = member.read() if member else b""
                if _sha256(data) != right:
                    raise BadData(f"its {file} has SHA-256 {_sha256(data)}, not {right}")
                write_whole(archive.with_name(file), data)
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise BadData(f"it is not the archive it should be: {error}") from None
    finally:
        archive.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """Return on one line why a download failed."""
    import requests

    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return f"no connection ({type(error).__name__})"
    return " ".join(str(error).split())


def _absent(source: Source, file: str, said: list[str]) -> str:
    """Say what is missing, why, and what the user can do."""
    folder = (source.folders or (source.name,))[0]
    return "\n".join(
        [
            f"{source.name}: {file} is not on this machine and cannot be downloaded.",
            *said,
            "You can do one of two things:",
            "- connect to the internet once and run this again; the files are then kept in "
            f"{places(source, file)[-1].parent}",
            f"- put {', '.join(source.sha256)} into a folder named {folder}, and set "
            "COURSE_DATA to the folder that holds it "
            f"(now {os.environ.get('COURSE_DATA') or 'not set'})",
            "These work now, without any files: digits, glyphs, letters, shapes.",
        ]
    )
