"""What an answer uses of the notebook's other cells. This runs in the box.

A student may write a helper, an import or a table in a cell of its own. The box does not
run these cells: it takes the imports, functions, classes and assignments at their top level
that bind a name the answer uses, what these use in turn, and nothing else. A cell that
draws or trains for minutes costs nothing, and one that cannot be read is left out.
"""

import ast
import dis
import re
from collections.abc import Iterator
from types import CodeType

DEFINITIONS = (
    *(ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.Assign, ast.AnnAssign, ast.AugAssign),
)
UNREADABLE = SyntaxError, ValueError, RecursionError, MemoryError


def needed(answer: CodeType, others: dict[str, str]) -> list[CodeType]:
    """Return what an answer needs of the other cells, which are sources by file name.

    The statements stand in the order of the notebook: of two with one name the later wins.
    """
    found = [statement for cell in others.items() for statement in definitions(*cell)]
    names: set[str] = set()
    grown = {"*", *used(answer)}
    while not grown <= names:
        names |= grown
        grown = {name for _, binds, uses in found if binds & names for name in uses}
    return [code for code, binds, _ in found if binds & names]


def definitions(file: str, source: str) -> Iterator[tuple[CodeType, set[str], set[str]]]:
    """Yield the definitions of a cell: code, the names it binds, and those it uses."""
    try:
        nodes = tree(source, file).body
    except UNREADABLE:
        return
    for node in nodes:
        if isinstance(node, DEFINITIONS):
            try:
                code = compile(ast.Module([node], []), file, "exec")
            except UNREADABLE:
                continue
            yield code, set(bound(node)), set(used(code))


def tree(source: str, file: str) -> ast.Module:
    """Return the syntax of a cell, without its magic."""
    return ast.parse(plain(source), file)


def plain(source: str) -> str:
    """Return the source of a cell; if it is no Python, without magic (%, !, ?).

    Each line stays where it was.

    >>> plain("%matplotlib inline\\nfiles = !ls\\nnp.sum?\\nx = 1")
    'pass\\nfiles = None\\npass\\nx = 1'
    """
    try:
        ast.parse(source)
        return source
    except UNREADABLE:
        pass
    if re.match(r"\s*%%(?!time|capture|prun)", source):
        return ""  # the rest of the cell is not Python, but bash or HTML
    source = re.sub(r"(?m)^( *)(\w+ *= *)[%!].*$", r"\1\2None", source)
    return re.sub(r"(?m)^( *)([%!?].*|[\w.]+\?\??)$", r"\1pass", source)


def bound(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a definition binds; "*" if only the module knows them."""
    match node:
        case ast.Import() | ast.ImportFrom():
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0]
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            for target in getattr(node, "targets", None) or [node.target]:
                yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
        case _:
            yield node.name


def used(code: CodeType) -> Iterator[str]:
    """Yield the names that code looks up outside of its functions."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from used(constant)
