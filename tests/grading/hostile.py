"""Text that wants to be more than text, in everything that a student may influence."""

from course.grading.grades import Graded, Submission

TEXTS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload=alert(1) '",
    "javascript:alert(1)",
    "]]><b>--><!--",
    "</title></style></table></svg><script>alert(1)</script>",
    "&lt;script&gt;&#60;script&#62;",
    "\u202egnp.exe\u2066\u200f",
    "\x1b[31mred\x1b]0;title\x07\x00\x9b1m",
    '=HYPERLINK("http://127.0.0.1:9/?"&A1,"click")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\uff1d1+1",
    "::set-output name=points::10",
    "  ::error file=a,line=1::no",
    "x ##[error]no ##vso[task.complete result=Failed]",
    "| a | b |\n| --- | --- |\n# heading\n- [x](javascript:alert(1)) ![y](http://127.0.0.1:9/)",
    "```\n`code` *bold* _it_ ~~no~~ <http://127.0.0.1:9/> www.example.org @octocat #1",
    "\ud800half a character\udfff",
    "\ufffe\uffff\u2028\u2029\r\n\v\f",
    "x" * 100_000,
    "Z\u0351\u0363" * 300,
]
PICTURES = [
    '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script>'
    '<rect width="9" height="9" onclick="alert(1)" fill="url(http://127.0.0.1:9/)"/></svg>',
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    '<a xlink:href="javascript:alert(1)"><text>click</text></a>'
    '<image href="http://127.0.0.1:9/x.png"/><use href="data:image/svg+xml,x"/></svg>',
    '<svg xmlns="http://www.w3.org/2000/svg"><foreignObject><body xmlns="http://www.w3.org/'
    '1999/xhtml"><iframe src="javascript:alert(1)"/></body></foreignObject>'
    "<style>@import 'http://127.0.0.1:9/';</style><title>&lt;script>alert(1)&lt;/script>"
    '<g style="background:url(http://127.0.0.1:9/)"/></title></svg>',
    '<svg xmlns="http://www.w3.org/2000/svg"><set attributeName="href" to="x" onbegin='
    '"alert(1)"/><animate onbegin="alert(1)"/><text>&lt;img src=x onerror=alert(1)></text>'
    "</svg>",
    '<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><svg>&b;</svg>',
    "<svg>" + "<g>" * 5000 + "</g>" * 5000 + "</svg>",
    '<html xmlns="http://www.w3.org/1999/xhtml"><script>alert(1)</script></html>',
    "<svg><rect",
    "no svg \ud800",
    "<svg>" + "<rect/>" * 100_000 + "</svg>",
]


def submissions():
    """Return submissions in which every text is hostile, in every status."""
    for k, text in enumerate(TEXTS):
        questions = tuple(
            Graded(
                name=text,
                worth=2,
                points=0.5,
                state=state,
                lines=(text, text, f"Smallest case: {text}"),
                rule=text,
                right=1,
                asked=3,
                mistake=text,
                picture=PICTURES[(k + j) % len(PICTURES)],
            )
            for j, state in enumerate(("wrong", text))
        )
        yield Submission(text, "graded", text, text, text, text, questions)
        yield Submission(text, "unusable", text, text, text, text)
        yield Submission(text, "retry", text, text, text, text)
