"""The rules of the house that a machine can check: see CONTRIBUTING.md, "Add a layer".

Read from the source text, so that nothing needs to be compiled.
"""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import course.layers

ROOT = Path(__file__).parents[1]
COURSE = ROOT / "course"
MODULES = sorted(COURSE.rglob("*.py"))
LAYERS = [
    path
    for path in sorted((COURSE / "layers").glob("*.py"))
    if path.stem not in ("__init__", "base")
]
TAUGHT = [path for path in MODULES if "\nEquations" in path.read_text(encoding="utf-8")]
DECLARED = re.compile(r"^ +\((\d+)\)  (\w+)(?:\[\S*\]|\(.*?\))? += ", re.MULTILINE)
EQUATION = re.compile(
    r"[Ee]quations? \((\d+)\)((?:(?:,| and|, and) \(\d+\))*)(?: to \((\d+)\))?"
)
NO_LOOPS = {"flatten", "reshape", "zeropad2d", "concat"}  # on the CPU: NumPy copies
PASSED_ON = {("residual_sum", "da"), ("residual_sum", "db")}  # they are dy itself
ARRAYS = {"x", "y", "w", "b", "s", "z", "a", "xp", "argmax", "logp", "labels"} | {
    *("m", "dx", "dy", "dw", "db", "ds", "dz", "dxp", "dyp"),
    *("loss", "target", "p", "logq", "dlogq", "v"),
    *("mean", "var", "invstd", "scale", "dwn", "dbn", "sums"),
    *("yp", "moves", "moved", "rows", "down", "columns", "across"),
    "count",
}


def name(path):
    """Return the file's name from the root, as an id."""
    return str(path.relative_to(COURSE).with_suffix("")).replace("\\", "/")


every_layer = pytest.mark.parametrize("path", LAYERS, ids=name)
every_taught = pytest.mark.parametrize("path", TAUGHT, ids=name)
every_module = pytest.mark.parametrize("path", MODULES, ids=name)


@cache
def tree(path):
    """Return the module's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def doc(path):
    """Return the module's docstring."""
    return ast.get_docstring(tree(path)) or ""


def functions(path):
    """Return name -> node of the module's own functions."""
    return {n.name: n for n in tree(path).body if isinstance(n, ast.FunctionDef)}


def loops(path):
    """Return the module's loops: name -> node."""
    return {k: v for k, v in functions(path).items() if re.search("_cpu|_cuda", k)}


def claimed(function):
    """Return the numbers of the equations that the function says it computes."""
    found = set()
    for first, word, last in EQUATION.findall(ast.get_docstring(function) or ""):
        found |= set(range(int(first), int(last or first) + 1))
        found |= {int(number) for number in re.findall(r"\((\d+)\)", word)}
    return found


def parameters(function):
    """Return the names of the function's parameters."""
    return [argument.arg for argument in function.args.args]


def imported(path):
    """Return the dotted names that the module imports, wherever it does so.

    `from a import b` counts as a.b if that is a module, and as a otherwise.
    """
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: say course.{node.module}, not a dot"
            for alias in node.names:
                inner = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                known = is_module or node.module in ("numba", "matplotlib")
                found.add(f"{node.module}.{alias.name}" if known else node.module)
    return found


# --- what a layer holds -----------------------------------------------------------------


@every_taught
def test_docstring_has_its_parts_in_order(path):
    text = doc(path)
    parts = ["Equations\n", "Shapes\n", "Edges: ", "Lecture: lectures/", "Source: "]
    if path.parent.name == "optimizers":  # parameters have any shape, and no edge
        parts = ["Equations", *parts[3:]]
    places = [text.find(f"\n{part}") for part in parts]
    assert -1 not in places, f"missing: {parts[places.index(-1)]!r}"
    assert places == sorted(places)
    first = text.split("\n\n")[0]
    assert first.endswith("."), "the first sentence stands alone"
    assert "Symbols: GLOSSARY.md" in text
    assert re.search(r"Lecture: lectures/\d\d_\w+\.ipynb", text)


@every_taught
def test_every_equation_is_computed_by_somebody_who_says_so(path):
    """Loops say which equation and who owns an element; functions say what they return."""
    declared = DECLARED.findall(doc(path))
    numbers = [int(number) for number, _ in declared]
    assert numbers == list(range(1, len(numbers) + 1)) and numbers
    assert set().union(*map(claimed, functions(path).values())) == set(numbers)
    for loop, function in loops(path).items():
        text = ast.get_docstring(function)
        assert re.match(r"Equations? \(\d", text), f"{loop}: which equation?"
        assert "thread has" in text, f"{loop}: who owns an element?"


@every_layer
def test_every_array_has_its_loop(path):
    if path.stem in NO_LOOPS:
        assert not [loop for loop in loops(path) if "_cpu" in loop]
        return
    for number, array in DECLARED.findall(doc(path)):
        if (path.stem, array) in PASSED_ON:
            continue
        computing = [f for f in loops(path).values() if int(number) in claimed(f)]
        filled = {array, f"{array}p"}  # one loop may fill several arrays
        assert any(filled & set(parameters(f)) for f in computing), f"equation ({number})"


@every_taught
def test_arguments_are_filled_arrays_then_arrays_then_sizes(path):
    for loop, function in loops(path).items():
        names = parameters(function)
        if "_cuda" in loop:
            continue
        assert names[-2:] == ["first", "past"], loop
        filled = re.match(r"_([a-z]+)_cpu", loop)[1]
        assert names[0] in (filled, f"{filled}p"), f"{loop} fills {filled}: name it first"
        arrays = [k for k, argument in enumerate(names[:-2]) if argument in ARRAYS | {"t"}]
        assert arrays == list(range(len(arrays))), f"{loop}: arrays come before sizes"


@every_taught
def test_loops_trust(path):
    """Errors are raised by the pure functions, in words; a loop only computes."""
    for loop, function in loops(path).items():
        for node in ast.walk(function):
            assert not isinstance(node, ast.Raise | ast.Assert | ast.Try), loop


@every_layer
def test_functions_and_class_have_the_names_of_the_file(path):
    public = [k for k in functions(path) if not k.startswith("_")]
    assert public == [f"{path.stem}_forward", f"{path.stem}_backward"]
    classes = [n.name for n in tree(path).body if isinstance(n, ast.ClassDef)]
    stem = path.stem.replace("_", "")  # BatchNorm1d and BatchNorm2d share batchnorm.py
    assert classes and {k.lower() for k in classes} <= {stem, f"{stem}1d", f"{stem}2d"}
    for exported in (*public, *classes):
        assert exported in course.layers.__all__
        assert hasattr(course.layers, exported)


@every_layer
def test_parameters_are_called_weight_and_bias(path):
    keys = re.findall(r'self\.(?:params|grads)(?:\[|\.get\()"(\w+)"', path.read_text())
    assert set(keys) <= {"weight", "bias"}


@every_layer
def test_layer_has_a_test(path):
    test = ROOT / f"tests/layers/test_{path.stem}.py"
    assert "check_layer(" in test.read_text(), "check every gradient against its slope"


@every_taught
def test_pure_functions_show_an_example_and_say_what_raises(path):
    for function in functions(path).values():
        if function.name.startswith("_"):
            continue
        text = ast.get_docstring(function)
        assert ">>> " in text, f"{function.name}: an example by hand"
        assert "Raises" in text, f"{function.name}: what raises?"


@every_module
def test_public_names_have_docstrings(path):
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            assert ast.get_docstring(node), node.name


# --- one letter, one meaning ------------------------------------------------------------


def glossary():
    """Return the capital letters of GLOSSARY.md, each with the indices that run over it."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "GLOSSARY.md").read_text(encoding="utf-8").splitlines():
        columns = [re.findall(r"`(\w+)`", column) for column in line.split("|")[1:-1]]
        if len(columns) == 3:
            for symbol in columns[0]:
                assert symbol not in found, f"GLOSSARY.md has {symbol} twice"
                found[symbol] = set(columns[2])
    return {symbol: indices for symbol, indices in found.items() if symbol.isupper()}


@pytest.mark.parametrize("path", [*TAUGHT, COURSE / "shapes.py"], ids=name)
def test_capitals_are_in_the_glossary(path):
    constants = {  # of the module: SMALL = 1 << 15
        target.id
        for node in tree(path).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in tree(path).body:  # and those of other modules
        if isinstance(node, ast.ImportFrom):
            constants |= {alias.name for alias in node.names}
    for function in functions(path).values():
        used = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
        capitals = {s for s in used | set(parameters(function)) if s.isupper()}
        unknown = capitals - constants - glossary().keys()
        assert not unknown, f"{function.name}: not in GLOSSARY.md"


@every_taught
def test_an_index_runs_over_its_own_size(path):
    """`for i in range(HO)`, never `for p in range(HO)`: GLOSSARY.md says which."""
    letters = glossary()
    for loop, function in loops(path).items():
        for node in ast.walk(function):
            if not isinstance(node, ast.For):
                continue
            bound = node.iter.args[-1] if isinstance(node.iter, ast.Call) else None
            if not (isinstance(bound, ast.Name) and bound.id in letters):
                continue
            size = bound.id
            # a group's channels and filters run as channels and filters do
            indices = letters[size] or letters[size.removesuffix("G").removesuffix("P")]
            index = node.target.id
            assert index in indices, f"{loop}: {index} runs over {size}, not {indices}"


# --- who may import whom ----------------------------------------------------------------

FLOORS = [  # a module imports from lower floors, and from its own package
    ["shapes", "compiled", "cuda", "files", "interrupts", "state_files"],
    ["launch"],
    ["device"],
    ["engine", "philox"],
    ["layers"],
    ["fused", "summary"],
    [
        *("model", "losses", "optimizers", "schedules", "initial", "regularization"),
        *("data", "information", "checks", "checkpoints", "graph"),
    ],
    ["training", "operations", "zoo", "history", "vision"],
    ["sanity", "onnx"],
    ["viz", "exercises"],
    ["recipes"],
    ["grading", "bench", "notebooks", "train", "warmup"],
    ["reproduce"],
    ["doctor"],
    ["cli"],
    ["__main__"],
]
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}


@every_module
def test_upper_imports_lower(path):
    package = name(path).split("/")[0]
    if package == "__init__":  # course/__init__.py loads what is asked for, when it is
        return
    assert package in FLOOR, f"say in tests/test_house.py on which floor {package} is"
    for module in imported(path):
        top, _, rest = module.partition(".")
        other = rest.split(".")[0]
        if top == "course" and other and other != package:
            assert FLOOR[other] < FLOOR[package], f"{package} may not import {other}"


@every_layer
def test_layers_never_import_one_another(path):
    ours = {module for module in imported(path) if module.startswith("course")}
    lower = {"compiled", "cuda", "device", "engine", "philox", "shapes"}
    assert {module.split(".")[1] for module in ours - {"course.layers.base"}} <= lower


@pytest.mark.parametrize("path", [*LAYERS, COURSE / "shapes.py"], ids=name)
def test_layers_need_numba_and_numpy_only(path):
    tops = {module.split(".")[0] for module in imported(path)} - {"course"}
    assert tops - sys.stdlib_module_names <= {"numpy", "numba"}


@every_module
def test_only_one_module_knows_numba_cuda(path):
    if name(path) != "cuda/native":
        assert not {m for m in imported(path) if m.startswith("numba.cuda")}


@every_module
def test_pyplot_is_for_users(path):
    """Its hidden current figure is global state: course.viz.figure makes figures."""
    assert not {m for m in imported(path) if m in ("matplotlib.pyplot", "pylab")}


@every_module
def test_one_way_to_compile(path):
    """`course.compiled.compiled` and `course.cuda.jit`; no prange but in the launcher.

    Elsewhere `course.device.fill` has the threads.
    """
    launcher = name(path) == "launch"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            for decorator in map(ast.unparse, node.decorator_list):
                call = decorator.split("(")[0]
                ours = call == "cuda.jit" or (
                    call == "jit" and name(path) == "cuda/__init__"
                )
                word = call.split(".")[-1]
                assert ours or word not in (
                    "jit",
                    "njit",
                    "vectorize",
                    "guvectorize",
                    "stencil",
                )
        spelt = getattr(node, "id", ""), getattr(node, "attr", "")
        assert "prange" not in spelt or launcher
    assert ("numba.prange" in imported(path)) == launcher


@every_module
def test_no_global_seed(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np.random":
            kept = {"Generator", "default_rng", "SeedSequence", "PCG64", "Philox"}
            assert node.attr in kept, f"np.random.{node.attr} has a global state"


HEAVY = ("numba", "sklearn", "matplotlib", "torch", "pandas", "IPython")


@pytest.mark.parametrize(
    "statement, absent",
    [
        ("import course", ("numpy", *HEAVY)),
        ("import course.layers", ("numba.cuda", "numba_cuda", *HEAVY[1:])),
        ("import course.training", ("numba.cuda", "numba_cuda", *HEAVY[1:])),
    ],
)
def test_importing_is_light(statement, absent):
    program = f"{statement}\nimport sys\nprint(*(sys.modules.keys() & {set(absent)!r}))"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []


def test_importing_compiles_nothing():
    program = (
        "import course.layers, course.losses, gc\n"
        "from numba.core.dispatcher import Dispatcher\n"
        "loops = [o for o in gc.get_objects() if isinstance(o, Dispatcher)\n"
        "         and o.__module__.startswith('course')]\n"
        "assert loops\n"
        "print(*(o.__name__ for o in loops if o.overloads))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []
