"""The form of an answer: a verdict, then what the history shows, the user's taste and how the target fits it.

    Verdict: Yes
    History: Liked "Iron Bridge" and two more titles about revenge.
    Taste: Prefers bleak stories, avoids gentle ones.
    Fit: The target is about vengeance and bleak.

The verdict is the answer's first *word*, never a substring: "Nothing", "Not" and "Noah" are no verdicts, nor is the
first word of a title ("No Country for Old Men"), or one that the same line takes back. Labels are
read in any order, with the markdown, numbering and case that chat models give them. Text behind the verdict on its own
line belongs to no part and is not kept. A trace's text is its verdict and its parts without the labels: "Yes. Liked …
Prefers … The target …".
"""

from __future__ import annotations

import json
import re
import unicodedata
from contextlib import suppress

Parts = dict[str, str]  # by name, in the order of PARTS

WORDS = {True: "Yes", False: "No"}
VERDICT = "Verdict"
PARTS = {"history": "History", "taste": "Taste", "fit": "Fit"}  # names, and the labels that are asked for

_QUOTED_MARKUP = r"[\s*_#>`~\"'“”\u2018\u2019«»()\[\]-]*"
_VERDICT_LABEL = (
    rf"(?:(?:\(?\d{{1,2}}[.):]{_QUOTED_MARKUP})?(?:the\s+)?(?:final\s+|my\s+)?(?:verdict|answer)"
    rf"{_QUOTED_MARKUP}(?:[:\uff1a=\n]|(?<=\s)[\u2013\u2014-]|\bis\b:?){_QUOTED_MARKUP})?"
)
# Titles begin with the words, too ("No Country for Old Men", "Yes Man"), and "No doubt" means something else: without
# a mark after it, the word is a verdict only where the next one goes on from it.
_CONNECTIVES = (
    "it|its|they|their|he|she|his|her|i|we|you|user|because|since|as|given|due|but|though|this|that|these|those|the"
)
_VERDICT_END = (
    r"(?![^\W_])(?![-'\u2019_][^\W_])(?!\s*/\s*(?:yes|no)\b)(?!(?<=no)\.[^\S\n]*\d)"
    rf"(?=[*_`~\"'“”\u2018\u2019«»)\]]*(?:[^\S\n]*(?:[^\w\s]|\n|\Z)|\s+(?:{_CONNECTIVES})\b))"
)
_VERDICT_WORD = re.compile(rf"{_QUOTED_MARKUP}{_VERDICT_LABEL}(?P<word>yes|no){_VERDICT_END}", re.IGNORECASE)
# A verdict that stands by itself: at the end of the first line or of a sentence in it, or alone on a line; what
# leads to it may stand before it ("Wait, actually no").
_LEAD = (
    r"(?:(?:so|or|the|final|then|thus|hence|therefore|verdict|answer|is|overall|but(?!\s+(?:yes|no)\b)|wait"
    r"|actually|ultimately|rather|on|second|thoughts?|reflection|in|fact|my)[\s:,.*_]+){0,8}"
)
_LINE_START = r"^[\s*_#>`~-]*"
_ANOTHER_VERDICT = re.compile(
    rf"(?:(?:[.:;,!?\u2013\u2014\u2026]|\s-)[^\S\n]*|{_LINE_START}){_LEAD}[*_`]*(?P<word>yes|no)[*_`]*"
    r"(?=[.!,;]|[^\S\n]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_ALONE = re.compile(rf"{_LINE_START}{_LEAD}[*_`]*(?:yes|no)[*_`]*[.!]?\s*", re.IGNORECASE)
# Other forms in which models mark it: at the beginning of an answer or at its end.
_MARK = (
    r"(?:\$|\\\()?(?:<(?:answer|verdict)>|\\boxed\{(?:\\[a-z]+\{)?)\s*[*_]*(?P<word>yes|no)[*_]*[.!]?\s*"
    r"(?:</(?:answer|verdict)>|\}{1,2})(?:\$|\\\))?[.\s*]*"
)
_MARKED_ANYWHERE = re.compile(_MARK, re.IGNORECASE)
_MARKED = re.compile(rf"\A{_QUOTED_MARKUP}{_VERDICT_LABEL}{_MARK}", re.IGNORECASE)
_MARKED_LAST = re.compile(
    rf"(?:(?:(?:the|my)\s+)?(?:final\s+)?(?:verdict|answer)(?:\s+is)?[\s:*]*)?{_MARK}\Z", re.IGNORECASE
)
_FENCE = re.compile(r"\A\s*```\w*\s*|\s*```\s*\Z")
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
# Reasoning models behind generic servers leave their scratch work in the answer, its opening tag often in the prompt.
_THOUGHTS = "think|thinking|thought|thoughts|reasoning"
_SCRATCH = re.compile(
    rf"\A.*(?:</(?:{_THOUGHTS})>|\[/THINK\]|\u25c1/think\u25b7|<\|channel\|>final<\|message\|>)"
    rf"|(?:<(?:{_THOUGHTS})>|\[THINK\]|\u25c1think\u25b7|<\|channel\|>analysis).*\Z",
    re.DOTALL | re.IGNORECASE,
)
_TAGS = re.compile(
    rf"</?(?:{_THOUGHTS})>|\[/?THINK\]|\u25c1/?think\u25b7|<\|channel\|>(?:analysis|final)|<\|(?:message|start|end)\|>",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\W*(?:I(?:['\u2019]m| am) (?:very )?(?:sorry|afraid)\b"
    r"|(?:very )?sorry\b(?=\s*[,.:;!\u2013\u2014-]|\s+(?:but|I)\b)"
    r"|(?:Unfortunately,? )?I (?:can(?:not|['\u2019]t)|am unable|am not able|won['\u2019]t|will not|must decline)\b"
    r"|I['\u2019]m (?:unable|not able)\b|As an AI\b)",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"\b(?:it|target|this one|which)\s+"
    r"(?:(?:is|seems|looks|would|should|will|be|still|therefore|thus|also|clearly)\s+){0,3}"
    r"(?P<no>(?:(?:does|do|is|will|would)\s+not|(?:does|do|is|wo|would)n['\u2019]t|not|unlikely\s+to)\s+"
    r"(?:be\s+|really\s+)?)?"
    r"(?P<fits>fits?\b|suits?\b|(?:a\s+)?(?:good|strong|natural|poor|bad|weak)\s+(?:fit|match)\b)",
    re.IGNORECASE,
)


def without_scratch(text: str) -> str:
    """An answer without what a reasoning model thought aloud before it, or began to."""
    return _SCRATCH.sub("", text)


def scratch_of(text: str) -> str:
    """What `without_scratch` takes away, without its tags."""
    thoughts = _SCRATCH.search(text)
    return _TAGS.sub(" ", thoughts[0]).strip() if thoughts else ""


def parse_verdict(text: str) -> bool | None:
    """True for an answer that begins with the word Yes, False for No, None for anything else."""
    return split_verdict(text)[0]


def split_verdict(text: str) -> tuple[bool | None, str]:
    """An answer's verdict and the explanation after it, without the markup between them; None and all of the text
    where it begins with no verdict.
    """
    normal = plain_form(text)
    match = _VERDICT_WORD.match(normal)
    if match is None:
        return None, text
    rest = normal[match.end() :]
    gap = _AFTER_VERDICT.match(rest)
    assert gap is not None  # every part of the pattern is optional
    line, _, further = rest.partition("\n")
    alone = filter(_ALONE.fullmatch, further.splitlines())
    word, others = match["word"].lower(), _ANOTHER_VERDICT.finditer("\n".join([line, *alone]))
    if any(other["word"].lower() != word for other in others):
        return None, text
    return word == "yes", rest[gap.end() :].strip()


def conclusion_of(text: str) -> bool | None:
    """Whether the last sentence that speaks of fitting says that the target fits."""
    conclusions = list(_CONCLUSION.finditer(text))
    if not conclusions:
        return None
    last = conclusions[-1]
    return not last["no"] and not re.search("poor|bad|weak", last["fits"], re.IGNORECASE)


def plain_form(text: str) -> str:
    """An answer in the form that is asked for, where a model gave it as JSON or marked its verdict in another way."""
    # Letters in NFC, as titles are: an "o" with a separate accent would end the word "No".
    text = unicodedata.normalize("NFC", without_scratch(text))
    with suppress(ValueError, RecursionError):
        fields = json.loads(_FENCE.sub("", text)) if "{" in text[:20] else None
        if isinstance(fields, dict):
            lines = {str(name): WORDS[value] if isinstance(value, bool) else value for name, value in fields.items()}
            parts = {_PART_OF.get(name.lower(), name): " ".join(str(value).split()) for name, value in lines.items()}
            verdict = [f"{VERDICT}: {parts.pop(VERDICT)}"] if VERDICT in parts else []
            return "\n".join([*verdict, *(f"{PARTS.get(name, name)}: {value}" for name, value in parts.items())])
    first, last = _MARKED.search(text), _MARKED_LAST.search(text)
    mark = first or last
    if mark is None or len({each["word"].lower() for each in _MARKED_ANYWHERE.finditer(text)}) > 1:
        return text
    return f"{VERDICT}: {mark['word']}\n{text[: mark.start()]}{text[mark.end() :]}".rstrip()


def read_parts(text: str) -> Parts:
    """The parts of an answer, each as sentences on one line.

    Raises:
        ValueError: a part is missing, empty or given twice; the message says which.
    """
    lines: dict[str, list[str]] = {}
    current: list[str] = []  # of no part: what stands before the first label
    for line in plain_form(text).splitlines():
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
