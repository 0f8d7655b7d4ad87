"""The form of an answer: a verdict, then what the history shows, the user's taste and how the target fits it.

    Verdict: Yes
    History: Liked "Iron Bridge" and two more titles about revenge.
    Taste: Prefers bleak stories, avoids gentle ones.
    Fit: The target is about vengeance and bleak.

The verdict is the answer's first *word*, never a substring: "Nothing", "Not" and "Noah" are no verdicts. Labels are
read in any order, with the markdown, numbering and case that chat models give them. Text behind the verdict on its own
line belongs to no part and is not kept. A trace's text is its verdict and its parts without the labels: "Yes. Liked …
Prefers … The target …".
"""

from __future__ import annotations

import re
import unicodedata

Parts = dict[str, str]  # by name, in the order of PARTS

WORDS = {True: "Yes", False: "No"}
VERDICT = "Verdict"
PARTS = {"history": "History", "taste": "Taste", "fit": "Fit"}  # names, and the labels that are asked for

_QUOTED_MARKUP = r"[\s*_#>`~\"'“”\u2018\u2019«»()\[\]-]*"
_VERDICT_LABEL = (
    rf"(?:(?:\(?\d{{1,2}}[.):]{_QUOTED_MARKUP})?(?:final\s+|my\s+)?(?:verdict|answer)"
    rf"{_QUOTED_MARKUP}[:\uff1a]{_QUOTED_MARKUP})?"
)
# "Yes or No" leaves the question open; "No doubt" and "No one" begin with the word and mean something else.
_NOT_A_VERDICT = (
    r"(?![^\W_])(?![-'\u2019_][^\W_])"
    r"(?!\s*(?:/|or\b)\s*(?:yes|no)\b)"
    r"(?!(?<=no)\s+(?:doubt|matter|one|problem|question|wonder)\b)"
)
_VERDICT_WORD = re.compile(rf"{_QUOTED_MARKUP}{_VERDICT_LABEL}(?P<word>yes|no){_NOT_A_VERDICT}", re.IGNORECASE)
_AFTER_VERDICT = re.compile(r"[\s*_`~\"'“”\u2018\u2019«»)\]]*[.,:;!…\u2013—-]*[\s*_`~\"'“”\u2019»)\]\u2013—-]*")

# What else models call the parts; compared in lower case, without markup.
_NAMES = {
    VERDICT: ("verdict", "final verdict", "my verdict", "answer", "final answer"),
    "history": ("history", "the history", "history shows", "what the history shows"),
    "taste": ("taste", "the taste", "user's taste", "preferences", "user preferences", "user's preferences"),
    "fit": ("fit", "target fit", "the fit", "how the target fits"),
}
_PART_OF = {name: part for part, names in _NAMES.items() for name in names}
_MARKUP = r"[\s*_#>`~-]*"
_NAME = "|".join(sorted(_PART_OF, key=len, reverse=True)).replace("'", "['\u2019]")
_LABEL = re.compile(
    rf"{_MARKUP}(?:\(?\d{{1,2}}[.):]{_MARKUP})?(?P<name>{_NAME}){_MARKUP}"
    r"(?:(?:[:\uff1a]|(?<=\s)[\u2013\u2014])[\s*_`~]*(?P<rest>.*)|$)",  # alone on its line it has to be a heading
    re.IGNORECASE,
)
_BULLET = re.compile(r"\s*(?:(?:[-*+>\u2022]|#+|\d{1,2}[.)])\s+|`{3,}\w*\s*$|[-*_=]{3,}\s*$)*")
_CLOSED = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]]*$")
_REFUSAL = re.compile(
    r"\W*(?:I(?:['\u2019]m| am) (?:very )?(?:sorry|afraid)\b"
    r"|(?:very )?sorry\b(?=\s*[,.:;!\u2013\u2014-]|\s+(?:but|I)\b)"
    r"|(?:Unfortunately,? )?I (?:can(?:not|['\u2019]t)|am unable|am not able|won['\u2019]t|will not|must decline)\b"
    r"|I['\u2019]m (?:unable|not able)\b|As an AI\b)",
    re.IGNORECASE,
)


def parse_verdict(text: str) -> bool | None:
    """True for an answer that begins with the word Yes, False for No, None for anything else."""
    return split_verdict(text)[0]


def split_verdict(text: str) -> tuple[bool | None, str]:
    """An answer's verdict and the explanation after it, without the markup between them; None and all of the text
    where it begins with no verdict.
    """
    normal = unicodedata.normalize("NFC", text)  # or an "o" with a separate accent would end the word "No"
    match = _VERDICT_WORD.match(normal)
    if match is None:
        return None, text
    rest = normal[match.end() :]
    gap = _AFTER_VERDICT.match(rest)
    assert gap is not None  # every part of the pattern is optional
    return match["word"].lower() == "yes", rest[gap.end() :].strip()


def read_parts(text: str) -> Parts:
    """The parts of an answer, each as sentences on one line.

    Raises:
        ValueError: a part is missing, empty or given twice; the message says which.
    """
    lines: dict[str, list[str]] = {}
    current: list[str] = []  # of no part: what stands before the first label
    for line in text.splitlines():
        label = _LABEL.fullmatch(line)
        if label is None or (label["rest"] is None and not line.lstrip().startswith(("#", "**"))):
            current.append(line)
            continue
        part = _PART_OF[label["name"].lower().replace("\u2019", "'")]
        if part in lines or (part == VERDICT and (lines or _sentences(current))):
            raise ValueError(f"{PARTS.get(part, part)} is given twice")
        current = lines.setdefault(part, [])
        current.append(label["rest"] or "")
    parts = {name: _sentences(lines.get(name, [])) for name in PARTS}
    for name, label_text in PARTS.items():
        if not parts[name]:
            raise ValueError(f"{label_text} is {'empty' if name in lines else 'missing'}")
    return parts


def trace_text(verdict: bool, parts: Parts) -> str:
    """The text that models are trained on."""
    return " ".join([f"{WORDS[verdict]}.", *(parts[name] for name in PARTS)])


def write_answer(verdict: bool, parts: Parts) -> str:
    """An answer in the form that is asked for."""
    return "\n".join([f"{VERDICT}: {WORDS[verdict]}", *(f"{label}: {parts[name]}" for name, label in PARTS.items())])


def refusal(text: str) -> str | None:
    """The words in which an answer begins by refusing to give one, or None."""
    opening = _REFUSAL.match(text)
    return opening[0].strip() if opening else None


def _sentences(lines: list[str]) -> str:
    """Lines of a part as sentences on one line: without bullets and emphasis, the last one closed."""
    text = " ".join(" ".join(_without_bullet(line) for line in lines).split())
    if not any(char.isalnum() for char in text):
        return ""
    text = f"{text[0].upper()}{text[1:]}"
    return text if _CLOSED.search(text) else f"{text}."


def _without_bullet(line: str) -> str:
    bullet = _BULLET.match(line)
    assert bullet is not None  # every part of the pattern is optional
    return line[bullet.end() :].replace("**", "")
