"""The pages that a student and a teacher read, as text and in a real browser."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from course.exercises.verdict import STATES
from course.grading import pages
from course.grading.grades import Submission
from course.grading.pages import picture, student, teacher
from tests import lab
from tests.grading import hostile

RETRY = Submission("late.ipynb", "retry", "the box did not start")
VOID = {"meta", "link", "br", "wbr"}
INLINE = {"strong", "code", "span", "a", "wbr"}
ELEMENTS = (
    pages.DRAWN
    | VOID
    | {
        *("html", "head", "style", "body", "header", "main", "footer", "section", "div"),
        *(
            "h1",
            "h2",
            "h3",
            "p",
            "strong",
            "small",
            "code",
            "span",
            "a",
            "ul",
            "li",
            "figure",
        ),
        *("dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td"),
    }
)


class Read(HTMLParser):
    """A page that was read: its elements, its text, and whether tags pair up."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.words += [] if tag in INLINE else [" "]
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def place(made):
    """Return a folder that a file system could hold."""
    return made.file.encode("utf-8", "replace").decode()


def every_page(graded):
    """Return pages of real submissions and of hostile ones."""
    bad = list(hostile.submissions())
    return [
        *map(student, [*graded.values(), RETRY, *bad]),
        teacher([*graded.values(), RETRY]),
        teacher(bad, place),
        teacher([]),
    ]


# --- what they say ----------------------------------------------------------------------


def test_student_reads_points_state_mistake_and_picture(graded):
    page = Read(student(graded["wrong"]))
    assert "running_sum ✗ Wrong numbers: 0" in page.text
    assert "You leave out x[k] itself." in page.text
    assert "Smallest case:" in page.text
    assert "expected" in page.text
    assert "Go on:" in page.text
    assert "check(running_sum)" in page.text
    assert "NOT ISOLATED" in page.text
    assert graded["wrong"].sha256 in page.text
    drawn = [q for q in graded["wrong"].questions if q.picture]
    assert len(page.all("figure")) == len(drawn) >= 1


def test_student_who_is_right_reads_so(graded):
    page = Read(student(graded["right"]))
    assert "6 of 10 points" in page.text
    assert "3 of 4 questions passed" in page.text
    assert page.text.count("✓ Passed") == 3
    assert "sum_squares ✗ No answer found: 0 of 4 points" in page.text


def test_every_state_has_its_words(graded):
    met = {q.state for made in graded.values() for q in made.questions}
    assert {"passed", "wrong", "error", "crash", "not attempted", "ambiguous"} <= met
    assert met | set(STATES) <= pages.STATES.keys()


def test_a_file_without_points_says_why_and_shows_none(graded):
    page = Read(student(graded["broken"]))
    assert "This file cannot be graded" in page.text
    assert graded["broken"].says in page.text
    assert "points" not in page.text
    page = Read(student(RETRY))
    assert "Not graded yet" in page.text
    assert "says nothing about your answers" in page.text
    assert " 0 " not in page.text


def test_only_one_case_of_a_question_is_shown(graded):
    for question in graded["wrong"].questions:
        page = student(replace(graded["wrong"], questions=(question,)))
        assert page.count("Smallest case:") <= 1


def test_teacher_reads_the_class(graded):
    page = Read(teacher([*graded.values(), RETRY], lambda made: f"x/{made.file}"))
    assert "submissions 7 graded 5 unusable 1 retry 1" in page.text
    assert "5 graded; of 10 points the mean is" in page.text
    mean = sum(m.points for m in graded.values()) / 5
    assert f"mean is {mean:.2f}" in page.text
    assert "1 running_sum You leave out x[k] itself." in page.text
    assert "late.ipynb retry the box did not start" in page.text
    assert "5 of 5: NOT ISOLATED" in page.text
    links = [a["href"] for a in page.all("a")]
    assert "./x/ann/00_sample.ipynb/student.html" in links
    assert all(re.fullmatch(r"\./[\w./%~-]+/student\.html", link) for link in links)


def test_mistakes_are_counted(graded):
    rare = replace(graded["wrong"].questions[0], mistake="A rare one.")
    other = replace(graded["right"], questions=(rare,))
    page = Read(teacher([graded["wrong"]] * 3 + [other]))
    often = page.text.index("3 running_sum You leave out x[k] itself.")
    assert often < page.text.index("1 running_sum A rare one.")
    assert page.all("svg")[0]["aria-label"].startswith("0: 4; 10: 0;")


def test_an_isolated_class_has_no_warning(graded):
    safe = replace(graded["right"], isolation="strict")
    assert "NOT ISOLATED" not in teacher([safe])
    assert "NOT ISOLATED" not in student(safe)
    assert "1 of 2: NOT ISOLATED" in teacher([safe, graded["right"]])
    assert "NOT ISOLATED" in student(replace(safe, isolation="very safe"))


# --- how they are made ------------------------------------------------------------------


def test_pages_are_sound_and_hold_known_elements_only(graded):
    for page in every_page(graded):
        read = Read(page)
        assert {name for name, _ in read.elements} <= ELEMENTS | {
            n.lower() for n in ELEMENTS
        }
        assert len(read.all("h1")) == 1
        levels = [int(name[1]) for name, _ in read.elements if re.fullmatch("h[1-6]", name)]
        assert all(b <= a + 1 for a, b in pairwise(levels))
        for name, attributes in read.elements:
            assert not any(key.startswith("on") or key == "style" for key in attributes)
            assert "src" not in attributes
            if name == "th":
                assert attributes["scope"] in ("row", "col")


def test_every_drawing_has_its_words(graded):
    for made in graded.values():
        for page in (student(made), teacher([made])):
            for drawing in Read(page).all("svg"):
                assert drawing.get("aria-hidden") == "true" or drawing["role"] == "img"
    assert "<title>" in pages.picture(graded["wrong"].questions[0].picture)


def test_the_policy_forbids_all_but_the_style_of_the_page(graded):
    page = student(graded["right"])
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_hostile_text_is_shown_and_nothing_else():
    for made in hostile.submissions():
        page = student(made)
        assert "<script" not in page
        assert "\u202e" not in page
        assert "\x1b" not in page
        page.encode()
    shown = Read(student(next(hostile.submissions()))).text
    assert "<script>alert(1)</script>" in shown


def test_a_long_text_is_cut():
    long = next(m for m in hostile.submissions() if len(m.file) == 100_000)
    assert len(student(long)) < 40_000


def test_a_thousand_submissions_are_a_small_page(graded):
    everyone = [
        replace(made, file=f"class-of-2026/a-rather-long-name-{k:04}/00_sample.ipynb")
        for k, made in enumerate(list(graded.values()) * 167)
    ]
    assert len(everyone) > 1000
    assert len(teacher(everyone, lambda made: f"submissions/{made.file}")) < 2_000_000


# --- the picture ------------------------------------------------------------------------


def test_a_picture_of_the_grader_comes_through_whole(graded):
    drawn = [q.picture for made in graded.values() for q in made.questions if q.picture]
    assert drawn
    for svg in drawn:
        before, after = ElementTree.fromstring(svg), ElementTree.fromstring(picture(svg))
        for one, two in zip(before.iter(), after.iter(), strict=True):
            assert one.tag.removeprefix(pages.SVG) == two.tag
            assert (one.text or "").strip() == (two.text or "").strip()
            assert one.attrib == two.attrib


@pytest.mark.parametrize("svg", hostile.PICTURES, ids=range(len(hostile.PICTURES)))
def test_a_hostile_picture_loses_what_is_no_drawing(svg):
    drawn = picture(svg)
    assert len(drawn) < pages.SIZE
    if "<!" in svg:
        assert drawn == ""
    if not drawn:
        return
    for element in ElementTree.fromstring(drawn).iter():
        assert element.tag in pages.DRAWN
        assert element.attrib.keys() <= pages.ALLOWED
        assert not set(":/;&<") & set("".join(element.attrib.values()))


# --- colours ----------------------------------------------------------------------------


def luminance(colour):
    """Return the relative luminance of #rrggbb, as WCAG defines it."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, two):
    """Return the contrast of two colours, 1 to 21."""
    low, high = sorted(map(luminance, (one, two)))
    return (high + 0.05) / (low + 0.05)


THEMES = re.findall(r":root \{(.*?)\}", pages.STYLE, re.DOTALL)


@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark", "print"])
def test_text_has_the_contrast_of_wcag_aa(theme):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    colour = dict(re.findall(r"--(\w+): (#\w{6})", theme))
    for text in ("ink", "soft", "link", "good", "part", "bad"):
        for ground in ("ground", "card", "code"):
            assert contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
    assert contrast(colour["ink"], colour["warn"]) >= 4.5
    for shape in ("good", "part", "some", "quiet"):  # bars and lines
        assert contrast(colour[shape], colour["card"]) >= 3, shape


# --- in a browser -----------------------------------------------------------------------

CONTRAST = """() => {
  const solid = c => c && !/, 0\\)$|transparent/.test(c);
  const ground = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (solid(c)) return c; }
    return 'rgb(255, 255, 255)'; };
  const own = e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim());
  return [...document.body.querySelectorAll('*')].filter(
    e => own(e) && !e.closest('svg, style')).map(
    e => [getComputedStyle(e).color, ground(e), e.textContent.slice(0, 40)]);
}"""
NONE = lab.missing()
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def chromium():
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = {"executable_path": lab.browser(), "args": ["--no-sandbox"]}
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()


def in_browser(test):
    """Mark a test that needs Chromium; `run.py test --all` runs it."""
    return pytest.mark.slow(pytest.mark.skipif(bool(NONE), reason=str(NONE))(test))


def worst_pages():
    """Return a teacher's and a student's page with all hostile text, and some more."""
    bad = list(hostile.submissions())
    lines = tuple(question for made in bad for question in made.questions)
    one = student(replace(bad[0], questions=lines))
    return [teacher(bad, place), one, *map(student, bad[1::5])]


def opened(chromium, path, **options):
    """Open a page; return it, and a list of all that it must not do."""
    page, done = chromium.new_page(**options), []
    page.on("dialog", lambda dialog: (done.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: done.append(request.url))
    page.on("pageerror", lambda error: done.append(f"ran: {error}"))
    page.on("console", lambda message: done.append(message.text))
    page.goto(path.as_uri())
    page.wait_for_timeout(20)
    done.remove(path.as_uri())
    return page, done


def hexadecimal(colour):
    """Return #rrggbb of rgb(r, g, b)."""
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", colour)[:3])


@pytest.fixture(scope="module", params=["light", "dark"])
def scheme(request):
    """Light or dark."""
    return request.param


@in_browser
def test_hostile_pages_run_nothing_and_ask_for_nothing(chromium, tmp_path):
    for k, text in enumerate(worst_pages()):
        path = tmp_path / f"{k}.html"
        path.write_text(text, "utf-8")
        page, done = opened(chromium, path)
        assert done == [], text[:300]
        assert page.locator("script, iframe, img, object, form, foreignObject").count() == 0
        for address in page.evaluate("[...document.links].map(link => link.href)"):
            assert address.startswith(tmp_path.as_uri()), address
        page.close()


@in_browser
def test_a_script_in_a_page_would_be_seen_and_is_forbidden(chromium, tmp_path, graded):
    """The test above can fail; and the policy stops what gets past the escaping."""
    path = tmp_path / "planted.html"
    planted = "<script>alert(1)</script><img src='http://127.0.0.1:9/'>"
    text = student(graded["right"]).replace("</body>", f"{planted}</body>")
    path.write_text(text, "utf-8")
    _, done = opened(chromium, path)
    assert "dialog" not in done
    assert any("Content Security Policy" in what for what in done)
    path.write_text(re.sub(r"<meta http-equiv.*?>", "", text), "utf-8")
    _, done = opened(chromium, path)
    assert "dialog" in done


@in_browser
@pytest.mark.parametrize("width", [360, 1200])
def test_pages_fit_and_can_be_read(chromium, tmp_path, graded, scheme, width):
    path = tmp_path / "page.html"
    real = [*map(student, graded.values()), teacher([*graded.values(), RETRY])]
    for text in (*real, *worst_pages()[:2]):
        path.write_text(text, "utf-8")
        view = {"width": width, "height": 800}
        page, _ = opened(chromium, path, viewport=view, color_scheme=scheme)
        assert page.evaluate("getComputedStyle(document.body).margin") == "0px"
        assert page.evaluate(WIDER) <= 0, text[:500]
        for colour, ground, words in page.evaluate(CONTRAST):
            pair = hexadecimal(colour), hexadecimal(ground)
            assert contrast(*pair) >= 4.5, (pair, words)
        page.close()
