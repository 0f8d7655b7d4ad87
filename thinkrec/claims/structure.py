"""The form of an answer: a verdict line, then what the history shows, the user's taste and how the target fits it.

    Verdict: Yes
    History: Liked "Iron Bridge" and two more titles about revenge.
    Taste: Prefers bleak stories, avoids gentle ones.
    Fit: The target is about vengeance and bleak.

Labels are read by rule, in any order, with the markdown, numbering and case that chat models give them. What stands
behind the verdict on its own line is in no part, so it is not kept. A trace's text is its verdict and its parts without
the labels: "Yes. Liked … Prefers … The target …".
"""

from __future__ import annotations

import re

from thinkrec.claims.verdict import WORDS, canonical

Parts = dict[str, str]  # by name, in the order of PARTS

VERDICT = "Verdict"
PARTS = {"history": "History", "taste": "Taste", "fit": "Fit"}  # names, and the labels that are asked for

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


def read_parts(text: str) -> Parts:
    """The parts of an answer, each as sentences on one line.

    Raises:
        ValueError: a part is missing, is empty or is given twice; the message says which.
    """
    lines: dict[str, list[str]] = {}
    current: list[str] = []  # of no part: what stands before the first label
    for line in text.splitlines():
        found = _LABEL.fullmatch(line)
        if found is None or (found["rest"] is None and not line.lstrip().startswith(("#", "**"))):
            current.append(line)
            continue
        part = _PART_OF[found["name"].lower().replace("\u2019", "'")]
        if part in lines or (part == VERDICT and (lines or _sentences(current))):
            raise ValueError(f"{PARTS.get(part, part)} is given twice")
        current = lines.setdefault(part, [])
        current.append(found["rest"] or "")
    parts = {name: _sentences(lines.get(name, [])) for name in PARTS}
    for name, label in PARTS.items():
        if not parts[name]:
            raise ValueError(f"{label} is {'empty' if name in lines else 'missing'}")
    return parts


def trace_text(verdict: bool, parts: Parts) -> str:
    """The text that models are trained on."""
    return canonical(verdict, " ".join(parts[name] for name in PARTS))


def write_answer(verdict: bool, parts: Parts) -> str:
    """An answer in the form that is asked for."""
    return "\n".join([f"{VERDICT}: {WORDS[verdict]}", *(f"{label}: {parts[name]}" for name, label in PARTS.items())])


def _sentences(lines: list[str]) -> str:
    """Lines of a part as sentences on one line: without bullets and emphasis, the last one closed."""
    text = " ".join(" ".join(_unmarked(line) for line in lines).split())
    if not any(char.isalnum() for char in text):
        return ""
    text = f"{text[0].upper()}{text[1:]}"
    return text if _CLOSED.search(text) else f"{text}."


def _unmarked(line: str) -> str:
    bullet = _BULLET.match(line)
    assert bullet is not None  # every part of the pattern is optional
    return line[bullet.end() :].replace("**", "")
