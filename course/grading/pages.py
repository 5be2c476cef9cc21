"""Pages to read: one for the student, one for the teacher. A page needs no other file.

Everything that a student may have written is text here, cut where it is too long. A page
holds no script and loads nothing, and its policy forbids both.

The student's page shows the smallest case that is wrong, and no other. To know it does not
help to cheat: the cases are drawn from the secret and the bytes of the notebook, so a
notebook that has learnt this one is asked others.
"""

import os
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from html import escape
from itertools import groupby
from pathlib import Path, PurePosixPath
from statistics import fmean, median
from urllib.parse import quote
from xml.etree import ElementTree

from course.grading.grades import ISOLATION, STATUS, Graded, Submission, printable

Place = Callable[[Submission], str]  # the folder of a submission, seen from the page

STYLE = Path(__file__).with_name("pages.css").read_text("utf-8")
LONG = 400  # characters of a text that are kept

# state: in words, its tone, and how to go on
STATES = {
    "passed": ("Passed", "good", ""),
    "slow": (
        "Right, but slow",
        "part",
        "Your answer is right: what is missing is speed. {check} measures it, too.",
    ),
    "imprecise": (
        "Nearly right",
        "part",
        "The method is right and the digits are not. Go through the sums: in which order, "
        "and in which type? Then run {check}.",
    ),
    "wrong": (
        "Wrong numbers",
        "bad",
        "Compute the first wrong number by hand, then run {check}.",
    ),
    "shape": (
        "Wrong shape",
        "bad",
        "Write down the shape that each line should give, then run {check}.",
    ),
    "error": (
        "Stops with an error",
        "bad",
        "Restart the kernel, run the notebook from the top, then run {check}.",
    ),
    "time limit": (
        "Takes too long",
        "bad",
        "Look for a loop that does not end, and for loops inside loops that need not be.",
    ),
    "crash": (
        "Ends the process",
        "bad",
        "Look for exit(), for a function that calls itself without end, and for very large "
        "arrays. Then run {check}.",
    ),
    "not attempted": (
        "Not attempted",
        "soft",
        "Write the function in its cell, then run {check}.",
    ),
    "missing": (
        "No answer found",
        "bad",
        "Copy the question's cell out of a fresh exercise, put your answer into it, and "
        "hand in again.",
    ),
    "ambiguous": (
        "More than one answer",
        "bad",
        "Keep the cell that is your answer, delete the others, and hand in again.",
    ),
}
USUAL = ("its grade_id", "its id")  # rules by which an untouched notebook is read
MARKS = {"good": "✓", "part": "◐", "bad": "✗", "soft": "○"}  # no colour needed

# what a picture may be made of
DRAWN = {"svg", "g", "rect", "line", "polyline", "polygon", "path", "circle", "ellipse"}
DRAWN |= {"text", "tspan", "title", "desc"}
ALLOWED = {
    *("x", "y", "x1", "y1", "x2", "y2", "dx", "dy", "cx", "cy", "r", "rx", "ry", "d"),
    *("points", "width", "height", "viewBox", "transform", "opacity", "role"),
    *("fill", "fill-opacity", "fill-rule", "stroke", "stroke-width", "stroke-opacity"),
    *("stroke-dasharray", "stroke-linecap", "stroke-linejoin", "font-family", "font-size"),
    *("font-style", "font-weight", "text-anchor", "dominant-baseline", "letter-spacing"),
}
HARMLESS = re.compile(r"[\w\s.,#%()+'-]*")  # no address: neither : nor /
SIZE, DEPTH = 65_536, 8  # of a picture: bytes, elements inside one another
SVG = "{http://www.w3.org/2000/svg}"


def plain(given: str, width: int = LONG) -> str:
    """Return the text on one line, cut if it is long, without what does not show."""
    return printable(given if len(given) <= width else given[: width - 1] + "…")


class Html(str):
    """Text that is HTML already."""


def text(value: object) -> Html:
    """Return the value as HTML: escaped, on one line, cut if it is long.

    >>> text("a < b\\x1b[31m")
    'a &lt; b [31m'
    """
    if isinstance(value, Html):
        return value
    return Html(escape(plain(f"{value:g}" if isinstance(value, float) else str(value))))


def tag(name: str, *inside: object, **attributes: object) -> Html:
    """Return an element. Whatever goes in and is not Html is escaped.

    >>> tag("p", "1 < 2", class_="soft")
    '<p class="soft">1 &lt; 2</p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{given}>{''.join(map(text, inside))}</{name}>")


def page(title: str, *inside: Html, **attributes: str) -> str:
    """Return a whole page."""
    digest = b64encode(sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            tag("title", title),
            f"<style>{STYLE}</style>",
            "</head>",
            tag("body", Html("\n"), *inside, Html("\n"), **attributes),
            "</html>\n",
        ]
    )


# --- the student's page -----------------------------------------------------------------


def student(submission: Submission) -> str:
    """Return the page of one submission."""
    named = submission.exercise.replace("_", " ") or submission.file
    kind = "Exercise" if submission.exercise else "File"
    head = tag("p", kind, class_="kicker"), tag("h1", named)
    if submission.status != "graded":
        words = {
            "unusable": (
                "This file cannot be graded",
                "Mend the file and hand it in again.",
            ),
            "retry": (
                "Not graded yet",
                "The grader could not work. That says nothing about your answers, and no "
                "points were given or taken: it will be tried again.",
            ),
        }
        says, remedy = words.get(submission.status, ("Not graded", ""))
        told = tag("p", says, class_="total"), tag("p", submission.says), tag("p", remedy)
        body = [tag("header", *head), tag("main", tag("section", *told))]
    else:
        passed = sum(q.state == "passed" for q in submission.questions)
        total = (
            tag("strong", submission.points),
            f" of {counted(submission.worth, 'point')}",
        )
        summary = f"{passed} of {counted(len(submission.questions), 'question')} passed"
        body = [
            tag(
                "header",
                *head,
                tag("p", *total, class_="total"),
                bar(submission.points, submission.worth),
                tag("p", summary, class_="soft"),
            ),
            tag("main", *map(question, submission.questions)),
        ]
    return page(f"{named}: {submission.file}", *body, fine_print(submission))


def question(graded: Graded) -> Html:
    """Return what a student is told about one question."""
    words, tone, how = STATES.get(graded.state, (graded.state, "bad", ""))
    state = tag("strong", f"{MARKS[tone]} {words}", class_=tone)
    points = f": {graded.points:g} of {counted(graded.worth, 'point')}"
    if graded.asked > 1:
        points += f", {graded.right} of {graded.asked} cases right"
    parts = [tag("h2", tag("code", graded.name)), tag("p", state, points)]
    if graded.mistake:
        parts.append(tag("p", graded.mistake, class_="mistake"))
    # the first line repeats the heading
    told = [line for line in graded.lines[1:] if line != graded.mistake]
    if told and graded.state != "not attempted":
        parts.append(tag("ul", *(tag("li", line) for line in told), class_="lines"))
    if drawn := picture(graded.picture):
        parts.append(tag("figure", drawn, tabindex=0, aria_label="The smallest wrong case"))
    if how:
        before, check, after = how.partition("{check}")
        call = [tag("code", f"check({graded.name})")] if check else []
        parts.append(tag("p", tag("strong", "Go on: "), before, *call, after))
    if graded.rule and graded.rule not in USUAL and graded.state != "ambiguous":
        parts.append(tag("p", f"The cell was found by {graded.rule}.", class_="soft"))
    return tag("section", *parts, class_=f"is-{tone}")


def counted(number: int, word: str) -> str:
    """Return the number with its word."""
    return f"{number} {word}{'s' * (number != 1)}"


def fine_print(submission: Submission) -> Html:
    """Return what was graded, and how."""
    lines = [f"File: {submission.file}"]
    if submission.sha256:
        lines.append(f"SHA-256 of what was graded: {submission.sha256}")
    if submission.status == "graded":
        lines += [
            ISOLATION.get(submission.isolation, ISOLATION["none"]),
            "All points are for an answer that is right in every case and, where it is "
            "asked for, fast enough. Otherwise points begin where more than half of the "
            "cases are right, and end at half of all. The cases belong to this very file: "
            "a changed one is asked others.",
        ]
    return tag("footer", *(tag("p", line) for line in lines))


def bar(points: float, worth: float) -> Html:
    """Return a bar that is filled as far as points were had; the text beside it says it."""
    full = max(0.0, min(1.0, points / worth)) if worth else 0.0
    return tag(
        "svg",
        tag("rect", width=100, height=6, rx=1),
        tag(
            "rect", width=100 * full, height=6, rx=1, class_="had" if full == 1 else "some"
        ),
        class_="bar",
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def picture(svg: str) -> Html:
    """Return the drawing in the SVG, or "" if there is none that can be trusted.

    The grader made it, of a student's numbers. Only what `DRAWN` and `ALLOWED` name gets
    through: shapes and text, no links, no scripts, nothing to load.
    """
    if not svg or len(svg) > SIZE or "<!" in svg:  # no entities, which could grow
        return Html("")
    try:
        return _drawn(ElementTree.fromstring(svg), DEPTH)
    except (ElementTree.ParseError, ValueError):
        return Html("")


def _drawn(element: ElementTree.Element, depth: int) -> Html:
    """Return an element of a drawing, with what is allowed in it."""
    name = element.tag.removeprefix(SVG)
    if name not in DRAWN or not depth:
        return Html("")
    inside = [text(element.text or "")]
    for child in element:
        inside += [_drawn(child, depth - 1), text(child.tail or "")]
    given = "".join(
        f' {key}="{escape(value)}"'
        for key, value in element.attrib.items()
        if key in ALLOWED and HARMLESS.fullmatch(value)
    )
    return Html(f"<{name}{given}>{''.join(inside)}</{name}>")


# --- the teacher's page -----------------------------------------------------------------


def teacher(submissions: Iterable[Submission], place: Place | None = None) -> str:
    """Return the page of a class; place(submission) is where its folder is, if given."""
    everyone = sorted(submissions, key=lambda m: (m.exercise, m.file, m.sha256, m.status))
    good = [made for made in everyone if made.status == "graded"]
    others = [made for made in everyone if made.status != "graded"]
    count = Counter(made.status for made in everyone)
    known = [(word, count[word]) for word in STATUS]
    numbers = [("submissions", len(everyone)), *known]
    stamps = Counter(ISOLATION.get(m.isolation, ISOLATION["none"]) for m in good)
    unsafe = stamps[ISOLATION["none"]]
    head = [
        tag("h1", "Results of a class"),
        tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in numbers)),
    ]
    if unsafe:
        says = f"{unsafe} of {len(good)}: {ISOLATION['none']}"
        head.append(tag("p", says, class_="warning"))
    parts = [_not_graded(others, place)] if others else []
    for exercise, group in groupby(good, key=lambda made: made.exercise):
        parts.append(_exercise(exercise, list(group), place))
    foot = [tag("p", f"{number} {says}") for says, number in sorted(stamps.items())]
    foot.append(
        tag("p", "Whether answers are alike, and who wrote them, is not judged here.")
    )
    return page(
        "Results of a class",
        tag("header", *head),
        tag("main", *parts),
        tag("footer", *foot),
        class_="wide",
    )


def _who(made: Submission, place: Place | None) -> Html:
    """Return the head of a submission's row: its folder, if that says enough."""
    path = PurePosixPath(made.file)
    usual = path.stem == made.exercise and len(path.parts) > 1
    name = _broken(str(path.parent) if usual else made.file)
    if place:
        address = f"./{quote(os.fsencode(place(made)))}/student.html"
        name = tag("a", name, href=Html(address))  # quote leaves nothing to escape
    return tag("th", name, scope="row")


def _not_graded(others: list[Submission], place: Place | None) -> Html:
    """Return the table of files without points."""
    rows = [
        (
            _who(made, place),
            tag("td", made.status),
            tag("td", made.says, class_="words"),
        )
        for made in others
    ]
    meant = (
        "unusable: the student must hand in another file; "
        "retry: grade again, the student can do nothing about it"
    )
    table = _table("Not graded", meant, ("file", "status", "reason"), rows)
    return tag("section", tag("h2", f"Not graded ({len(others)})"), table)


def _exercise(exercise: str, group: list[Submission], place: Place | None) -> Html:
    """Return the part of the page on one exercise."""
    points = [made.points for made in group]
    worth = max(made.worth for made in group)
    says = (
        f"{len(group)} graded; of {worth} points the mean is {fmean(points):.2f} and the "
        f"median {median(points):g}."
    )
    asked = dict.fromkeys(q.name for made in group for q in made.questions)
    by_name = {name: [] for name in asked}
    for made in group:
        for graded in made.questions:
            by_name[graded.name].append(graded)
    return tag(
        "section",
        tag("h2", exercise.replace("_", " ")),
        tag("p", says),
        tag("h3", "Share of all points, in percent"),
        _totals(group),
        tag("h3", "Question by question"),
        _questions(by_name),
        *_mistakes(group),
        tag("h3", "Submissions"),
        _submissions(group, list(asked), place),
    )


def _totals(group: list[Submission]) -> Html:
    """Return how many submissions had which share of the points."""
    shares = [made.points / made.worth if made.worth else 0 for made in group]
    counts = Counter(min(int(10 * share + 1e-9), 10) for share in shares)
    return bars([(str(10 * k), counts[k]) for k in range(11)], 30, 90)


def _questions(by_name: dict[str, list[Graded]]) -> Html:
    """Return the table of an exercise's questions."""
    rows = []
    for name, answers in by_name.items():
        worth = answers[0].worth
        states = Counter(graded.state for graded in answers).most_common()
        passed = sum(graded.state == "passed" for graded in answers)
        mean = fmean(graded.points for graded in answers)
        bins = Counter(_quarter(graded) for graded in answers)
        shares = [(label, bins[k]) for k, label in enumerate(("0", "¼", "½", "<1", "1"))]
        rows.append(
            (
                tag("th", tag("code", _broken(name)), scope="row"),
                tag("td", f"{mean:.2f} of {worth}", class_="number"),
                tag("td", f"{100 * passed / len(answers):.0f} %", class_="number"),
                tag("td", bars(shares, 22, 34)),
                tag(
                    "td",
                    ", ".join(f"{state} {number}" for state, number in states),
                    class_="words",
                ),
            )
        )
    heads = "question", "mean", "passed", "share of the points", "states"
    says = "Share of the points: none, up to ¼, ½, less than all, all"
    return _table("Questions", says, heads, rows)


def _quarter(graded: Graded) -> int:
    """Return which bar a question's points belong to."""
    share = graded.points / graded.worth if graded.worth else 0
    return next(k for k, top in enumerate((0, 0.25, 0.5, 0.999, 9e9)) if share <= top)


def _mistakes(group: list[Submission]) -> list[Html]:
    """Return the table of the known mistakes that were made, the most frequent first."""
    met = Counter(
        (q.name, q.mistake) for made in group for q in made.questions if q.mistake
    )
    rows = [
        (
            tag("td", number, class_="number"),
            tag("th", tag("code", _broken(name)), scope="row"),
            tag("td", mistake, class_="words"),
        )
        for (name, mistake), number in sorted(met.items(), key=lambda m: (-m[1], m[0]))
    ]
    if not rows:
        return []
    heads = "times", "question", "mistake"
    table = _table("Mistakes", "As the student was told", heads, rows)
    return [tag("h3", "Mistakes that were recognised"), table]


def _submissions(group: list[Submission], asked: list[str], place: Place | None) -> Html:
    """Return the table of the submissions: a row each, a column a question."""
    rows = []
    for made in group:
        answers = {graded.name: graded for graded in made.questions}
        rows.append(
            (
                _who(made, place),
                tag("td", tag("strong", made.points), class_="number"),
                *(_cell(answers.get(question)) for question in asked),
            )
        )
    heads = ("file", "points", *map(_broken, asked))
    says = "Points, and the state where it is not “passed”"
    return _table("Submissions", says, heads, rows)


def _broken(name: str) -> Html:
    """Return a name that may go on in the next line after each of _ and /."""
    return Html(re.sub("([_/])", r"\1<wbr>", text(name)))


def _cell(graded: Graded | None) -> Html:
    """Return a question's points, and its state unless it passed."""
    if graded is None:
        return tag("td")
    if graded.state == "passed":
        return tag("td", graded.points)
    return tag("td", graded.points, tag("small", graded.state))


def _table(
    name: str, says: str, heads: Iterable[str], rows: list[tuple[Html, ...]]
) -> Html:
    """Return a table that scrolls by itself where the screen is narrow."""
    head = tag("tr", *(tag("th", word, scope="col") for word in heads))
    body = Html("\n".join(tag("tr", *row) for row in rows))
    table = tag("table", tag("thead", head), tag("tbody", body), aria_label=name)
    scrolling = tag(
        "div", table, class_="scroll", tabindex=0, role="group", aria_label=says
    )
    return tag("div", tag("p", says, class_="soft"), scrolling)


def bars(counts: list[tuple[str, int]], step: int, height: int) -> Html:
    """Return a bar for each (label, number), the label below and the number above it.

    The first bar stands for few points or none, and the last for all of them.
    """
    most = max([number for _, number in counts] + [1])
    parts = []
    for k, (label, number) in enumerate(counts):
        tall, left = height * number / most, k * step
        colour = {0: "none", len(counts) - 1: "all"}.get(k, "some")
        at = {"x": left + step / 2, "text_anchor": "middle"}
        parts += [
            tag(
                "rect",
                x=left + 2,
                y=round(12 + height - tall, 1),
                width=step - 4,
                height=round(tall, 1),
                class_=colour,
            ),
            tag("text", label, y=height + 24, **at),
        ]
        if number:
            parts.append(tag("text", number, y=round(9 + height - tall, 1), **at))
    width = step * len(counts)
    parts.append(tag("line", x1=0, x2=width, y1=height + 12.5, y2=height + 12.5))
    return tag(
        "svg",
        *parts,
        class_="bars",
        viewBox=f"0 0 {width} {height + 28}",
        width=width,
        height=height + 28,
        role="img",
        aria_label="; ".join(f"{label}: {number}" for label, number in counts),
    )
