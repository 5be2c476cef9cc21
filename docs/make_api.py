"""Write docs/api.md, a line for every public name of the course, from the source text.

    python docs/make_api.py            write it
    python docs/make_api.py --check    say whether it is up to date

Nothing is imported: what stands in the files is what the page says.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/api.md"
INTRODUCTION = """\
# API reference

Every public name, its arguments and what it is for. The files have the rest: equations,
shapes, edges and examples. (`docs/make_api.py` writes this page from them.)
"""
GROUPS = {  # heading, and the modules or packages under it
    "Layers": ["layers"],
    "Losses": ["losses"],
    "Optimizers": ["optimizers", "schedules", "regularization"],
    "Models": ["model", "summary", "state_files", "zoo", "onnx"],
    "Training": ["training", "sanity", "checks"],
    "Autodiff": ["graph", "operations"],
    "History": ["history"],
    "Data": ["data"],
    "Images": ["vision"],
    "Information": ["information"],
    "Figures": ["viz"],
    "Shapes": ["shapes"],
    "Device and compilation": ["device", "compiled"],
    "Exercises": ["exercises/check"],
}
ONLY = {  # of these modules; of packages, what `__all__` lists
    "compiled": {"compiled", "user_cache"},
    "exercises/check": {"check", "hint", "progress"},
}
ALL = {"viz"}  # of this package more than `__all__`: its modules are imported one by one
Public = ast.FunctionDef | ast.ClassDef


def first_sentence(node: ast.AST) -> str:
    """Return the first sentence of a docstring, on one line."""
    text = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return re.split(r"(?<=[.!?])\s", " ".join(text.split()), maxsplit=1)[0]


def signature(node: Public, module: ast.Module | None = None) -> str:
    """Return a name with its arguments and their defaults, as one writes the call."""
    if isinstance(node, ast.FunctionDef):
        if any(ast.unparse(mark) == "property" for mark in node.decorator_list):
            return node.name
        arguments = node.args
    elif (made := constructor(node, module)) is not None:
        arguments = made
    else:
        fields = [n.target.id for n in node.body if isinstance(n, ast.AnnAssign)]
        return f"{node.name}({', '.join(fields)})" if fields else node.name
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    text = ast.unparse(arguments).removeprefix("self").removeprefix(", ")
    return f"{node.name}({text})"


def constructor(node: ast.ClassDef, module: ast.Module) -> ast.arguments | None:
    """Return the arguments of a class's `__init__`, or of its parent's in the same file."""
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return inner.args
    parents = {ast.unparse(base) for base in node.bases}
    for other in module.body:
        if isinstance(other, ast.ClassDef) and other.name in parents:
            return constructor(other, module)
    return ast.parse("lambda: 0", mode="eval").body.args if "Layer" in parents else None


def public(body: list[ast.stmt]) -> Iterator[Public]:
    """Yield the functions and classes that have no underscore."""
    for node in body:
        if isinstance(node, Public) and not node.name.startswith("_"):
            yield node


def exported(package: Path) -> set[str] | None:
    """Return what a package lists in `__all__`; None if it has no such list."""
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def lines(path: Path, names: set[str] | None) -> Iterator[str]:
    """Yield the lines of a module: itself, and each of its public names."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    found = [n for n in public(module.body) if names is None or n.name in names]
    if not found:
        return
    place = path.relative_to(ROOT).as_posix()
    yield f"\n**[{place}](../{place})** {first_sentence(module)}\n"
    for node in found:
        yield f"- `{signature(node, module)}` {first_sentence(node)}"
        if isinstance(node, ast.ClassDef):
            for method in public(node.body):
                if ast.get_docstring(method) and isinstance(method, ast.FunctionDef):
                    yield f"    - `.{signature(method)}` {first_sentence(method)}"


def page() -> str:
    """Return the text of docs/api.md."""
    parts = [INTRODUCTION]
    for heading, places in GROUPS.items():
        parts.append(f"\n## {heading}")
        for place in places:
            package = ROOT / "course" / place
            if not package.is_dir():
                parts += lines(package.with_suffix(".py"), ONLY.get(place))
                continue
            names = None if place in ALL else exported(package)
            if names:
                parts.append(f"\n`from course.{place} import ...`")
            for path in sorted(package.glob("*.py")):
                parts += lines(path, names)
    return "\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or check it; return the exit code."""
    if arguments == ["--check"]:
        good = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print("up to date" if good else "docs/api.md is old: python docs/make_api.py")
        return int(not good)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
