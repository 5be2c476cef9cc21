"""Notebooks are derived, run, saved and written as the house wants them."""

import re
from contextlib import redirect_stdout
from io import StringIO

import nbformat
import pytest
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
    new_raw_cell,
)

from course import notebooks as tool
from course.cli import main
from course.exercises.check import report
from course.exercises.spec import MODULES, find, questions
from tests.notebooks_here import ROOT, code, every, notebooks, printed, read, tags

FOLDERS = ("lectures", "solutions", "exercises")
RUN = ("lectures", "solutions")
IGNORED = 4  # cells of a notebook whose output nbval may ignore: timings, mostly

# ------------------------------------------------------------------ derivation


def test_code_becomes_a_hole_at_its_indent():
    answer = "\n".join(
        [
            "def f(x):",
            '    """Double x."""',
            "    if x:",
            "        ### BEGIN SOLUTION",
            "        y = 2 * x",
            "        return y",
            "        ### END SOLUTION",
            "    return 0",
        ]
    )
    solution = new_notebook(
        cells=[
            new_code_cell(answer, id="answer-f", metadata={"tags": ["a"], "trusted": True}),
            new_markdown_cell(
                "Why?\n\n<!-- ### BEGIN SOLUTION -->\nBecause.\n<!-- ### END SOLUTION -->",
                id="answer-open",
            ),
            new_code_cell("1 + 1", id="x", execution_count=7),
        ]
    )
    solution.cells[2].outputs = [new_output("stream", text="2")]
    before = nbformat.from_dict(solution)
    exercise = tool.exercise_from(solution)
    assert exercise.cells[0].source == (
        'def f(x):\n    """Double x."""\n    if x:\n'
        '        raise NotImplementedError("your code here")\n    return 0'
    )
    assert exercise.cells[1].source == "Why?\n\n*Your answer here.*"
    assert exercise.cells[2].outputs == []
    assert exercise.cells[2].execution_count is None
    assert [cell.id for cell in exercise.cells] == ["answer-f", "answer-open", "x"]
    assert exercise.cells[0].metadata["tags"] == ["a"]
    assert "trusted" not in exercise.cells[0].metadata
    assert exercise.metadata == tool.METADATA
    assert solution == before


@pytest.mark.parametrize(
    "lines, number, says",
    [
        pytest.param(["x", "### BEGIN SOLUTION", "y"], 2, "has no", id="never closed"),
        pytest.param(["x", "### END SOLUTION"], 2, "has no", id="never opened"),
        pytest.param(
            ["### BEGIN SOLUTION", "### BEGIN SOLUTION", "### END SOLUTION"],
            2,
            "inside the pair of line 1",
            id="nested",
        ),
        pytest.param(
            ["if x:", "    ### BEGIN SOLUTION", "    y", "### END SOLUTION"],
            4,
            "in one block",
            id="crossing a block",
        ),
        pytest.param(
            ["### BEGIN SOLUTION", "y", "### END SOLUTION", "### END SOLUTION"],
            4,
            "has no",
            id="closed twice",
        ),
        pytest.param(["## BEGIN SOLUTION", "y"], 1, "must be exactly", id="two signs"),
        pytest.param(["### Begin solution", "y"], 1, "must be exactly", id="small letters"),
        pytest.param(["### BEGIN SOLUTION x"], 1, "must be exactly", id="more text"),
        pytest.param(["### BEGIN SOLUTON"], 1, "must be exactly", id="letter lost"),
        pytest.param(["### BEGIN-SOLUTION"], 1, "must be exactly", id="hyphen"),
        pytest.param(["y = 2  # END SOLUTION"], 1, "must be exactly", id="behind code"),
        pytest.param(
            ["<!-- ### BEGIN SOLUTION -->"], 1, "must be exactly", id="that of text"
        ),
    ],
)
def test_markers_that_do_not_pair_up_are_refused(lines, number, says):
    solution = new_notebook(cells=[new_code_cell("\n".join(lines), id="answer-f")])
    where = f"solutions/a.ipynb, cell answer-f, line {number}: "
    with pytest.raises(tool.MarkerError, match=re.escape(where)) as caught:
        tool.exercise_from(solution, "solutions/a.ipynb")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "make, cell_id, says",
    [
        (new_code_cell, "answer-f", "; there is none"),
        (new_markdown_cell, "answer-open", "; there is none"),
        (new_code_cell, "look-f", "line 2: a marker in a cell that is no answer"),
        (new_markdown_cell, "q-f", "line 2: a marker in a cell that is no answer"),
        (new_raw_cell, "answer-f", "line 2: a marker in a cell that is no answer"),
    ],
)
def test_answers_have_markers_and_nothing_else_has(make, cell_id, says):
    source = "x = 1" if says.endswith("none") else "x\n### BEGIN SOLUTION\n### END SOLUTION"
    cells = [make(source, id=cell_id), new_code_cell("pass", id="progress")]
    with pytest.raises(tool.MarkerError, match=f"a.ipynb, cell {cell_id}") as caught:
        tool.exercise_from(new_notebook(cells=cells), "a.ipynb")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "line",
    ["# the end", "## 3. The solution", "y = solution  # begin", "the ends of solutions"],
)
def test_other_words_are_no_markers(line):
    assert tool.with_holes(line) == line


@every("solutions")
def test_exercise_is_what_its_solution_gives(path):
    exercise = ROOT / "exercises" / path.name
    assert exercise.exists(), "run: python -m course exercises build"
    assert read(exercise) == tool.exercise_from(read(path)), (
        f"exercises/{path.name} differs from its solution. If you worked in it, that is "
        "as it should be; if not: python -m course exercises build"
    )


def answers(notebook):
    """Return the texts between the markers."""
    found = []
    for cell in notebook.cells:
        if cell.id.startswith("answer-"):
            begin, end = map(re.escape, tool.MARKERS[cell.cell_type])
            found += re.findall(f"{begin}\n(.*?)\n *{end}", cell.source, re.DOTALL)
    return found


def runs(text, count):
    """Return all runs of so many words and signs."""
    words = re.findall(r"\w+|[^\w\s]", text)
    return {tuple(words[k : k + count]) for k in range(len(words) - count + 1)}


LEAK = 15  # words and signs; `return y` and `y[np.arange(len(labels)), labels]` are shorter


@every("solutions")
def test_no_piece_of_an_answer_stands_in_the_exercise(path):
    exercise = read(ROOT / "exercises" / path.name)
    given = set().union(*(runs(cell.source, LEAK) for cell in exercise.cells))
    secret = [runs(text, LEAK) for text in answers(read(path))]
    assert len(secret) == len(questions(path.stem)) + 1  # and the open question
    assert sum(map(bool, secret)) >= 0.8 * len(secret), "too short to be looked for"
    for pieces in secret:
        assert not pieces & given


@every("solutions")
def test_no_line_of_an_answer_stands_in_the_exercise(path):
    """But for a line of less than half as many words, as `for i in range(n):`."""
    exercise = read(ROOT / "exercises" / path.name)
    given = {line.strip() for cell in exercise.cells for line in cell.source.split("\n")}
    lines = {line.strip() for text in answers(read(path)) for line in text.split("\n")}
    secret = {line for line in lines if runs(line, LEAK // 2)}
    assert len(secret) >= 10, "hardly anything is left to the student"
    assert not secret & given


@every("exercises")
def test_untouched_exercise_runs_and_says_not_attempted(path):
    notebook = tool.execute(path)
    checks = [cell for cell in code(notebook) if cell.id.startswith("check-")]
    names = {cell.id.removeprefix("check-") for cell in checks}
    assert names == {question.name for question in questions(path.stem)}
    for cell in checks:
        assert "not attempted" in printed(cell)


every_question = pytest.mark.parametrize(
    "path, name",
    [
        pytest.param(path, question.name, id=question.name)
        for path in notebooks("solutions")
        for question in questions(path.stem)
    ],
)


@every_question
def test_an_answer_needs_no_other(path, name):
    cells = code(read(path))
    own = [cell for cell in cells if "setup" in tags(cell) or cell.id == f"answer-{name}"]
    namespace = {"__name__": "__main__"}
    with redirect_stdout(StringIO()):
        for cell in own:
            exec(compile(cell.source, f"{path.name}:{cell.id}", "exec"), namespace)
        verdict = report(namespace[name], find(name)[1])
    assert verdict.state == "passed", verdict.lines


@every_question
def test_exercise_runs_with_only_one_answer(path, name):
    """Each cell, from top to bottom, for each question that may be the only one solved."""
    (answer,) = (cell for cell in read(path).cells if cell.id == f"answer-{name}")
    namespace = {"__name__": "__main__"}
    for cell in code(read(ROOT / "exercises" / path.name)):
        source = answer.source if cell.id == answer.id else cell.source
        with redirect_stdout(StringIO()) as said:
            exec(compile(source, f"{path.name}:{cell.id}", "exec"), namespace)
        if cell.id.startswith("check-"):
            state = "passed" if cell.id == f"check-{name}" else "not attempted"
            assert f": {state}" in said.getvalue(), cell.id


# ------------------------------------------------------------------ run and save


def test_shown_keeps_what_a_reader_sees():
    png = {"image/png": "iVBOR", "text/plain": "A line.", "text/html": "<img>"}
    view = {tool.WIDGET: {"model_id": "1"}, "text/plain": "VBox()"}
    outputs = [
        new_output("stream", name="stdout", text="a\n"),
        new_output("stream", name="stderr", text="100%"),
        new_output("stream", name="stdout", text="b\n"),
        new_output("display_data", {**view, **png}),
        new_output("display_data", view),
        new_output("execute_result", {"text/plain": "3"}),
        new_output("display_data", {"text/html": "<b>3</b>", "text/plain": "3"}),
    ]
    before = nbformat.from_dict(outputs)
    saved = tool.shown(outputs)
    assert [output.get("text") or output.data for output in saved] == [
        "a\nb\n",
        {"image/png": "iVBOR", "text/plain": "A line."},
        {"text/plain": "3"},
        {"text/html": "<b>3</b>", "text/plain": "3"},
    ]
    assert outputs == before
    assert tool.shown(saved) == saved


@pytest.mark.parametrize(
    "saved, new, same",
    [
        ("x 3", "x 3", True),
        ("x 3", "x 4", False),
        ("x 3", "y 3", False),
        ("x", "x 3", False),
        ("[[1, 2],\n [3, 4]]", "[[1, 2], [3, 4]]", True),
        ("0.30000000", "0.30000001", True),
        ("0.300000", "0.300001", False),
        ("0.0", "-1e-12", True),
        ("1e-8", "2e-8", False),
        ("1.0", "-1.0", False),
        ("[1. 2.]", "[1. 3.]", False),
        ("[3.]", "[2.99999999]", True),
        ("123456789", "123456790", False),
        ("123456789.", "123456790.", False),
        ("123456789.5", "123456789.6", True),
        ("nan", "nan", True),
        ("nan", "1.0", False),
        ("1e3", "1000.0", True),
        ("S2-07", "S2-08", False),
        ("a.1", "a.2", False),
        ("5x5", "5x6", False),
    ],
)
def test_agree(saved, new, same):
    assert tool.agree(saved, new) == same
    assert tool.agree(new, saved) == same


@pytest.fixture
def house(tmp_path, monkeypatch):
    """An empty project that the commands take for theirs."""
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def save(path, *sources):
    """Write a notebook of code cells."""
    cells = [new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_run_saves_what_the_cells_showed(house):
    path = save(
        house / "lectures/a.ipynb",
        "import sys\nprint(1)\nprint('careful', file=sys.stderr)\nprint(2)",
        "from pathlib import Path\nPath.cwd().name",
        "import course\ncourse.__version__",
    )
    assert main(["notebooks", "run", str(path)]) == 0
    first = path.read_bytes()
    cells = read(path).cells
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    assert [cell.id for cell in cells] == ["cell-0", "cell-1", "cell-2"]
    assert printed(cells[0]) == "1\n2\n"
    assert printed(cells[1]) == "'lectures'"  # where JupyterLab runs it, too
    assert main(["notebooks", "run", str(path)]) == 0
    assert path.read_bytes() == first
    assert not list(house.glob("lectures/.*"))


def test_run_saves_nothing_of_a_notebook_that_fails(house, capsys):
    path = save(house / "lectures/a.ipynb", "x = 1", "x / 0", "2")
    before = path.read_bytes()
    assert main(["notebooks", "run", str(path)]) == 1
    assert path.read_bytes() == before
    said = capsys.readouterr().err
    assert "x / 0" in said
    assert "ZeroDivisionError" in said


def test_run_refuses_an_exercise(house, capsys):
    path = save(house / "exercises/a.ipynb", "1")
    assert main(["notebooks", "run", str(path)]) == 2
    assert "run its solution" in capsys.readouterr().out


def answered(cell):
    cell.source = "x = 1"


def ran(cell):
    cell.outputs = [new_output("stream", text="x")]


@pytest.mark.parametrize("work", [answered, ran])
def test_build_writes_what_is_stale_and_spares_what_was_worked_in(house, capsys, work):
    solution, exercise = house / "solutions/a.ipynb", house / "exercises/a.ipynb"
    source = "### BEGIN SOLUTION\nx = 1\n### END SOLUTION"
    nbformat.write(new_notebook(cells=[new_code_cell(source, id="answer-x")]), solution)
    build = ["exercises", "build"]
    assert main([*build, "--check"]) == 1
    assert not exercise.exists()
    assert main(build) == 0
    assert main([*build, "--check"]) == 0
    assert read(exercise) == tool.exercise_from(read(solution))

    mine = read(exercise)
    work(mine.cells[0])
    nbformat.write(mine, exercise)
    assert main([*build, "--check"]) == 1
    assert main(build) == 1
    assert "somebody worked in it" in capsys.readouterr().out
    assert read(exercise) == mine
    assert main([*build, "--force"]) == 0
    assert read(exercise) == tool.exercise_from(read(solution))

    nbformat.write(new_notebook(cells=[new_code_cell("1", id="one")]), solution)
    assert main(build) == 0  # nobody worked in it: it is only out of date
    assert read(exercise) == tool.exercise_from(read(solution))


# ------------------------------------------------------------------ house rules


def test_each_topic_has_lecture_solution_exercise_and_questions():
    names = {folder: {path.stem for path in notebooks(folder)} for folder in FOLDERS}
    assert names == {folder: set(MODULES) for folder in FOLDERS}


@every(*RUN)
def test_is_saved_as_run_from_top_to_bottom(path):
    notebook = read(path)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    for cell in code(notebook):
        if "raises-exception" not in tags(cell):
            assert all(output.output_type != "error" for output in cell.outputs)


@every(*RUN)
def test_is_saved_tidy(path):
    assert read(path) == tool.tidy(read(path)), "run: python -m course notebooks run"


@every(*RUN)
def test_is_small(path):
    assert path.stat().st_size < 1_500_000
    for cell in code(read(path)):
        assert len(str(cell.outputs)) < 200_000, cell.id


@every(*RUN)
def test_every_picture_has_a_sentence(path):
    for cell in code(read(path)):
        for output in cell.outputs:
            data = output.get("data", {})
            if any(kind.startswith("image/") for kind in data):
                sentence = data.get("text/plain", "")
                assert not sentence.startswith("<"), f"{cell.id}: {sentence}"
                assert len(sentence.split()) >= 5, f"{cell.id}: {sentence}"
                assert sentence.endswith("."), f"{cell.id}: {sentence}"
                assert output.metadata["image/png"]["alt"] == sentence


@every(*FOLDERS)
def test_holds_no_path_no_address_of_a_registry_no_emoji(path):
    for cell in read(path).cells:
        for text in (cell.source, printed(cell) if cell.cell_type == "code" else ""):
            found = re.search(
                r"(?<![\w.:/])/(home|root|work|tmp|usr|Users|mnt|opt)/|[A-Z]:\\\\?\w"
                r"|ipykernel_\d|0x[0-9a-f]{6,}|[\U0001F000-\U0001FAFF\u2600-\u27BF]",
                text,
            )
            assert not found, f"{cell.id}: {found}"


@every(*FOLDERS)
def test_cells_have_names(path):
    ids = [cell.id for cell in read(path).cells]
    assert len(set(ids)) == len(ids)
    for name in ids:
        assert re.fullmatch(r"[a-z][a-z0-9_-]{1,63}", name)
        assert not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", name), "made by a machine"


@every(*FOLDERS)
def test_begins_with_its_title_and_runs_on_python3(path):
    notebook = read(path)
    assert notebook.metadata == tool.METADATA
    assert notebook.cells[0].cell_type == "markdown"
    assert re.match(r"# \w", notebook.cells[0].source)
    titles = re.findall(
        r"^# ",
        "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown"),
        re.MULTILINE,
    )
    assert len(titles) == 1


@every(*FOLDERS)
def test_no_code_cell_is_empty(path):
    assert all(cell.source.strip() for cell in code(read(path)))


@every(*FOLDERS)
def test_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type != "markdown":
            continue
        for target in re.findall(r"\]\(([^)\s]+)", cell.source):
            if target.startswith("#"):
                continue
            if re.match(r"[a-z]+:", target):
                assert re.match(r"https?://[\w.-]+\.[a-z]{2,}(/|$)", target), target
            else:
                there = (path.parent / target.split("#")[0]).resolve()
                assert there.exists(), f"{cell.id}: {target}"
                assert there.is_relative_to(ROOT), f"{cell.id}: {target}"


@every(*FOLDERS)
def test_few_cells_go_uncompared(path):
    ignored = []
    for cell in code(read(path)):
        assert "NBVAL" not in cell.source, f"{cell.id}: use a tag, which readers do not see"
        assert "nbval-skip" not in tags(cell), f"{cell.id}: a skipped cell is never run"
        if "nbval-ignore-output" in tags(cell):
            ignored.append(cell.id)
            shows = [tag for tag in tags(cell) if tag.startswith("seed:")]
            assert not shows, f"{cell.id} shows {shows}, so it must be compared"
    assert len(ignored) <= IGNORED, ignored


@every("solutions", "exercises")
def test_nbgrader_knows_whose_a_cell_is_and_what_it_is_worth(path):
    points = {
        f"check-{question.name}": question.points for question in questions(path.stem)
    }
    points["answer-open"] = 0
    exercise = path.parent.name == "exercises"
    known = {cell.id: cell for cell in read(path).cells if "nbgrader" in cell.metadata}
    answered = {f"answer-{question.name}" for question in questions(path.stem)}
    assert known.keys() == points.keys() | answered | {"setup"}
    for name, cell in known.items():
        role = dict(cell.metadata["nbgrader"])
        assert role.pop("grade_id") == name
        assert role.pop("schema_version") == 3
        assert role.pop("points", None) == points.get(name)
        assert role.pop("cell_type", None) == (cell.cell_type if exercise else None)
        assert role == {
            "grade": name in points,
            "locked": name == "setup" or name.startswith("check-"),
            "solution": name.startswith("answer-"),
            "task": False,
        }
        kept = {key: cell.metadata.get(key) for key in ("deletable", "editable")}
        locked = False if exercise and role["locked"] else None
        assert kept == {"deletable": False if exercise else None, "editable": locked}


@every("lectures")
def test_nbgrader_has_no_business_in_a_lecture(path):
    assert not any("nbgrader" in cell.metadata for cell in read(path).cells)


@every("solutions")
def test_each_question_has_its_answer_and_check(path):
    notebook = read(path)
    ids = [cell.id for cell in notebook.cells]
    for question in questions(path.stem):
        name = question.name
        answer = notebook.cells[ids.index(f"answer-{name}")]
        check = notebook.cells[ids.index(f"answer-{name}") + 1]
        assert answer.source.count("### BEGIN SOLUTION") == 1
        assert re.search(rf"^def {name}\(", answer.source, re.MULTILINE)
        assert check.id == f"check-{name}"
        assert check.source.strip().endswith(f"{name} = check({name})")
    assert "setup" in tags(code(notebook)[0])
    opened = notebook.cells[ids.index("answer-open")]
    assert opened.cell_type == "markdown"
    assert "<!-- ### BEGIN SOLUTION -->" in opened.source
