"""Numba's error messages, of a page each, as one sentence.

A message names types as numba does, and says what it tried. `sentence` gives the types
names that a beginner knows and says what to do, for the mistakes that are made most; for
the others it keeps the line that matters.
"""

import os
import re

TYPES = (  # what numba calls a type, and what it is called here
    (r"Literal\[(\w+)\]\([^)]*\)", r"\1"),
    (r"Function\(<(?:built-in )?(?:function|class|intrinsic) '?([\w.]+)[^>]*>\)", r"\1"),
    (r"array\((\w+), 0d, \w+\)", r"number of \1"),
    (r"(?:readonly )?array\((\w+), (\d)d, \w+\)", r"\2-D array of \1"),
    (r"(?:reflected )?list\(undefined\)(?:<iv=[^>]*>)?", "empty list"),
    (r"(?:reflected )?list\(([^()]*)\)(?:<iv=[^>]*>)?", r"list of \1"),
    (r"(?:reflected )?list\(([^()]*)\)(?:<iv=[^>]*>)?", r"list of \1"),  # a list of lists
    (r"UniTuple\(([\w .-]+) x (\d+)\)", r"tuple of \2 \1"),
    (r"Tuple\(([^()]*)\)", r"tuple of \1"),
    (r"unicode_type", "str"),
    (r"Optional\((\w+)\)", r"\1 or None"),
    (r"\bnone\b", "None"),
    (r" ?\.* [Rr]aised from .*", ""),
)
SAID = (  # a mistake, by what numba says about it, and what is said here
    (
        r"cannot index (\d)-D array of \w+ with (\d+) indices",
        r"\2 indices for a \1-D array",
    ),
    (
        r"unexpected keyword argument '(\w+)'",
        r"numba's version of this function has no \1=: do it in another way",
    ),
    (
        r"missing a required argument: '(\w+)'",
        r"an argument is missing here, \1",
    ),
    (
        r">>> (?:zeros|ones|empty|full)\(float",
        "a size must be a whole number: use // for /",
    ),
    (
        r">>> (?:zeros|ones|empty|full)\(list",
        "give the size as a tuple, as (2, 3), not as a list",
    ),
    (r">>> setitem\(\d-D array.*, (\d-D array of \w+)\)", r"one element cannot hold a \1"),
    (
        r">>> setitem\((.*), (?:tuple of )?.*, (.*)\)",
        r"a \2 cannot be put into a \1",
    ),
    (
        r">>> getitem\((tuple of .*), \w+\)",
        r"a \1 has numbers of two kinds: numba cannot take the k-th, use an array",
    ),
    (
        r">>> exception_match",
        "numba catches everything or nothing: use `except Exception:`",
    ),
    (r">>> i?(add|sub|mul|truediv|pow|matmul|lt|gt|le|ge|eq)\((.*), (.*)\)", None),
    (
        r">>> (?:array_)?(\w+\(.*)",
        r"numba cannot translate \1: it has nothing for these types",
    ),
    (
        r"Can't unify return type from the following types: (.+)",
        r"the function returns different types in different places: \1",
    ),
    (
        r"Cannot unify (.+) and (.+) for '(\w+)[\w.]*'",
        r"\3 changes its type, from \1 to \2; give it one type",
    ),
    (
        r"unsupported NumPy function 'numpy\.([\w.]+)'",
        r"numba does not have np.\1, or not like this: write the loop",
    ),
    (
        r"Untyped global name '(\w+)'.*<class 'function'>",
        r"\1 is a function of plain Python: put @njit above it as well",
    ),
    (
        r"Untyped global name '(\w+)'.*<class '([\w.]+)'>",
        r"\1 is a \2 outside of the function, which numba cannot use",
    ),
    (
        r"assigned to variable '(\w+)' in globals",
        r"\1 is a list outside of the function: make it an array, np.array(\1)",
    ),
    (
        r"Cannot infer the type of variable '(\w+)[\w.]*'.*empty list",
        r"the list \1 is empty, so that its type is unknown: fill an array, np.zeros(...)",
    ),
    (r"Unknown attribute '(\w+)' of type (.*)", r"a \2 has no \1 in numba"),
    (
        r"wrong tuple length.*expected (\d+), got (\d+)",
        r"\1 names on the left, but \2 on the right: the number of axes differs",
    ),
    (
        r"Invalid use of BoundFunction\(\w+\.(\w+) for .*\) with parameters \((.*)\)",
        r"numba cannot translate .\1(\2): it has nothing for these types",
    ),
    (r"format spec in f-strings", "numba has no formats as {x:.3f}: leave the text out"),
    (r"context manager", "numba has no `with`: leave it out of the function"),
    (r"IMPORT_NAME", "an import belongs above the function, not into it"),
    (r"LOAD_BUILD_CLASS", "numba cannot make a class in a function"),
    (r"yield in a closure", "numba has no (... for ... in ...): write the loop"),
)
SIGNS = {
    **{"add": "+", "sub": "-", "mul": "*", "truediv": "/", "pow": "**", "matmul": "@"},
    **{"lt": "<", "gt": ">", "le": "<=", "ge": ">=", "eq": "=="},
}


def sentence(message: str) -> str:
    """Return the one sentence that matters of a page of numba's error message.

    >>> sentence(">>> zeros(float64)")
    'a size must be a whole number: use // for /'
    """
    for theirs, ours in TYPES:
        message = re.sub(theirs, ours, message)
    for pattern, words in SAID:
        if found := re.search(pattern, message):
            if "unify return" in pattern:  # in any order
                return found.expand(words).replace(found[1], _sorted(found[1]))
            if words:
                return found.expand(words)
            operator, one, other = found.groups()
            return f"{one} {SIGNS[operator]} {other}: these types do not go together"
    lines = [line for line in message.splitlines() if line and "pipeline" not in line]
    return lines[0] if lines else message


def _sorted(types: str) -> str:
    return ", ".join(sorted(types.split(", ")))


def line(error: Exception, file: str) -> int:
    """Return the line of the file that numba complains about, or 0."""
    place = getattr(error, "loc", None)
    if place is not None:
        return place.line if place.filename == file else 0
    name = re.escape(os.path.basename(file))
    found = re.findall(rf'{name} \((\d+)|{name}", line (\d+)', str(error))
    lines = [int(one or other) for one, other in found]
    if "unify return" in str(error):  # in any order: the last `return` is the odd one
        return max(lines, default=0)
    return lines[0] if lines else 0
