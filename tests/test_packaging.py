"""The files around the course agree with each other, and hold no address of an index."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import course
import run
from course.cli import parser

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [
    Requirement(text)
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
CUDA_LOCK = (ROOT / "requirements-cuda.lock").read_text(encoding="utf-8")
both_locks = pytest.mark.parametrize("lock", [LOCK, CUDA_LOCK], ids=["lock", "cuda"])


def entries(lock: str) -> list[Requirement]:
    """Return what a lock names."""
    lines = re.findall(r"^([\w.-]+==[^\\\n]+?) *\\?$", lock, re.MULTILINE)
    return list(map(Requirement, lines))


LOCKED = entries(LOCK)
PYTHONS = [f"3.{minor}" for minor in range(run.OLDEST[1], run.NEWEST[1] + 1)]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
INDEXES = ("pypi", "pythonhosted", "anaconda.org", "test.pypi")  # hosts, or parts of them


def locked(name: str, python: str) -> list[Requirement]:
    """Return the lines of the lock for a package that this Python, on Linux, installs."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    return [
        requirement
        for requirement in LOCKED
        if canonicalize_name(requirement.name) == canonicalize_name(name)
        and (not requirement.marker or requirement.marker.evaluate(environment))
    ]


@both_locks
def test_lock_holds_no_address(lock):
    assert "://" not in lock
    assert "index" not in lock.splitlines()[1]


@both_locks
def test_lock_was_made_by_the_command_of_the_contributing_page(lock):
    command = lock.splitlines()[1].removeprefix("#").strip()
    assert command in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_lock_of_the_compile_check_agrees_with_the_other_one():
    ours = {entry.name: entry for entry in entries(CUDA_LOCK)}
    for name in ours.keys() & {entry.name for entry in LOCKED}:
        (same,) = locked(name, PYTHONS[0])
        assert ours[name].specifier == same.specifier, name
    group = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "dependency-groups"
    ]["compile-check"]
    for needed in map(Requirement, group):
        (exact,) = ours[needed.name].specifier
        assert needed.specifier.contains(exact.version), needed.name
    (extra,) = map(Requirement, PROJECT["optional-dependencies"]["cuda"])
    assert extra.specifier == Requirement(group[1]).specifier


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_the_compile_check_installs_nothing_where_run_py_does_not_want_it(system):
    for entry in entries(CUDA_LOCK):
        for machine in ("x86_64", "AMD64", "arm64"):
            here = {"sys_platform": system, "platform_machine": machine}
            assert not entry.marker.evaluate(here), entry.name


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_has_one_fitting_version_of_each_requirement(python):
    for needed in NEEDED:
        found = locked(needed.name, python)
        assert len(found) == 1, needed.name
        (exact,) = found[0].specifier
        assert needed.specifier.contains(exact.version), needed.name


@both_locks
def test_every_locked_package_has_hashes(lock):
    blocks = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(entries(lock)) >= 10
    for block in blocks:
        assert "--hash=sha256:" in block, block


def test_lock_has_one_numpy_the_build_tools_and_nothing_huge():
    names = [requirement.name for requirement in LOCKED]
    assert len(names) > 100 and names.count("numpy") == 1
    assert {"hatchling", "editables", "pip", "greenlet"} <= set(names)
    assert not [name for name in names if re.match("torch|nvidia|cuda|numba-cuda", name)]


def disagreements(environment: str) -> list[str]:
    """Return what of the conda environment is not as pyproject.toml has it."""
    read = yaml.safe_load(environment)
    specs = [spec for spec in read["dependencies"] if isinstance(spec, str)]
    others = [spec for spec in read["dependencies"] if not isinstance(spec, str)]
    wanted = {f"python {PROJECT['requires-python']}"}
    for needed in NEEDED:
        name = {"matplotlib": "matplotlib-base"}.get(needed.name, needed.name)
        versions = sorted(map(str, needed.specifier), reverse=True)  # >= before <
        wanted.add(f"{name} {','.join(versions)}")
    wrong = sorted(wanted ^ set(specs))
    if read["name"] != run.CONDA:
        wrong.append(f"name: {read['name']}")
    if read["channels"] != ["conda-forge"]:
        wrong.append(f"channels: {read['channels']}")
    if others != [{"pip": ["-e ."]}]:
        wrong.append(str(others))
    if set(read) != {"name", "channels", "dependencies"}:
        wrong.append(f"keys: {sorted(read)}")
    return wrong


def test_conda_environment_agrees_with_pyproject():
    assert disagreements((ROOT / "environment.yml").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("python >=3.11", "python >>3.11"),
        ("  - numba >=0.63\n", ""),
        ("numpy >=2.0,<2.5", "numpy >=2.0"),
        ("conda-forge", "defaults"),
        ("matplotlib-base", "matplotlib"),
        ("      - -e .", "      - -e . torch"),
        ("name: convnet-course", "name: course"),
    ],
)
def test_a_wrong_conda_environment_is_noticed(good, bad):
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert text.count(good) == 1
    assert disagreements(text.replace(good, bad))


def test_one_range_of_pythons():
    assert PROJECT["requires-python"] == f">={PYTHONS[0]},<3.{run.NEWEST[1] + 1}"
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )
    workflow = yaml.safe_load(
        (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    )
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    assert {system.split("-")[0] for system in matrix["os"]} == {
        "ubuntu",
        "macos",
        "windows",
    }


def test_ci_runs_the_test_command_of_the_readme_and_no_other():
    command = "python3 run.py test"
    assert f"    {command} " in (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert script.splitlines()[-1] == command
    assert not re.search(r"pytest|ruff|nbval", script)
    workflow = yaml.safe_load(
        (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    )
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["python run.py test"]
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_a_document_names_exists(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    commands = re.findall(r"(?:python3?|py) run\.py ([^`#\n]+)", text)
    assert commands
    for command in commands:
        words = re.split(r"\s{2,}", command.strip())[0].split()
        if words[0] not in ("lab", "test", "python"):
            parser().parse_args(words)  # exits if it cannot be understood


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^):]+)\)", text)
    named = re.findall(r"`((?:\w+/)*[\w.]+\.(?:py|md|ipynb|yml|toml|lock))`", text)
    for name in [*links, *named]:
        if "NN_topic" not in name and name != "spec.py":
            assert (ROOT / name).exists(), name


def test_the_picture_has_its_own_sentence_as_text_alternative():
    with Image.open(ROOT / "docs/picture.png") as picture:
        sentence = picture.info["Description"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"![{sentence}](docs/picture.png)" in readme


def test_contributing_page_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == course.__version__
    assert citation["license"] == PROJECT["license"]
    assert f"## {course.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_file_around_the_course_names_the_host_of_an_index():
    files = [ROOT / name for name in (*DOCUMENTS, "pyproject.toml", "run.py", ".ci/run")]
    files += [
        *ROOT.glob("*.yml"),
        *ROOT.glob(".github/**/*.yml"),
        *ROOT.glob("docs/**/*.md"),
    ]
    for path in files:
        for host in INDEXES:
            assert host not in path.read_text(encoding="utf-8"), path


def test_the_package_holds_the_whole_course(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        str(path.relative_to(ROOT).as_posix())
        for path in (ROOT / "course").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours <= held
    assert {name.split("/")[0] for name in held - ours} == {
        wheel.name.rsplit("-", 3)[0] + ".dist-info"
    }
