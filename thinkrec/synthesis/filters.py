"""What keeps an answer from becoming a trace: one filter per fault, tried in the order of `FILTERS`.

A filter looks at one answer and says what is wrong with it, or returns None. Filters that explain most come first: an
answer that is cut off is not blamed for its missing lines. Limits that users vary are parameters (`traces`), the others
are constants here.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from thinkrec.claims.answers import WORDS, Parts, read_parts, refusal, split_verdict, trace_text
from thinkrec.claims.checker import Checker
from thinkrec.claims.claims import Check, Claim
from thinkrec.params import TraceParams
from thinkrec.teacher.answers import Reply
from thinkrec.teacher.trace_prompts import Fault

Finding = str | None  # what is wrong, in a few words; None: nothing

REPEATED = 0.25  # share of a text's word triples that may be repeats
FOREIGN = 0.1  # share of letters that may be of another script than the question's
ENGLISH_FROM = 12  # words from which English cannot do without function words

# Common in English, and no words of its neighbours ("of" is Dutch, "for" Danish, "was" German).
_FUNCTION_WORDS = (
    "the and that this these those with which are were their they them has have had been would should could does it "
    "its from than then who whose while both not but because about"
)
_ENGLISH = frozenset(_FUNCTION_WORDS.split())
_WORD = re.compile(r"[^\W\d_]+")
_QUOTED = re.compile(r'"([^"]*)"|\u201c([^\u201d]*)\u201d')

# An explanation says why, not which answer was asked for: by us, or by a title that gives orders.
_TOLD = re.compile(
    r"""\b(?:
        (?:correct|right|true|actual|expected)\s+(?:answer|verdict|label)
      | (?:yes|no)[\s"'\u201d]+is\s+(?:right|correct)
      | answer(?:s|ed|ing)?\s+(?:(?:with|only|just|simply|always)\s+)*["'\u201c\u2018*]*(?:yes|no)
      | verdict["'\u201d*]*\s*(?:is|was|must\s+be|should\s+be|[:=])[\s"'\u201c*]*(?:yes|no)
      | verdict"\s*:\s*"(?:liked|disliked)
      | (?:ignor|disregard|forget)(?:e|ing)?\s+(?:(?:all|any|everything|of|the|these|those|your|my)\s+)*
        (?:(?:previous|prior|earlier|preceding|above)\s+)?(?:above|instructions?|rules|messages?|prompts?)
      | (?:system|developer)\s+(?:prompt|message)
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
# After a reflect turn, an explanation must not speak of it. These are phrases, not single common words: it may well
# speak of "a hint of melancholy" or of a "right turn".
_CORRECTED = re.compile(
    r"""\b(?:
        correct(?:ed|ions?)
      | hint(?:s|ed)?\b(?!\s+(?:of|at)\b)
      | (?:you(?:'re|\u2019re|\s+are|\s+were)|that(?:'s|\u2019s|\s+is))\s+(?:right|correct)
      | (?:as\s+)?you\s+(?:have\s+|just\s+)?(?:told|said|pointed|noted|mentioned|stated|indicated|informed|suggested
        |asked|requested)
      | (?:as|was|were|been|being)\s+(?:told|informed|advised|instructed|requested)
      | I\s+(?:was|were|had\s+been)\s+(?:wrong|mistaken|incorrect)
      | I\s+(?:had\s+|have\s+)?(?:overlooked|missed|misjudged|misread)
      | my\s+(?:previous|earlier|first|initial|last|original|prior)\b
      | (?:on|upon|after)\s+(?:further\s+|closer\s+)?(?:reflection|reconsideration|second\s+thoughts?)
      | in\s+hindsight
      | (?:revised|updated|new)\s+(?:answer|verdict|explanation)
      | reconsider(?:ed|ing)?
      | apolog(?:y|ies|i[sz]e)
      | my\s+mistake
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer about `row`, and what it is held to."""

    reply: Reply
    row: int
    label: bool
    reflected: bool  # whether an earlier answer about the row was refused
    checker: Checker
    limits: TraceParams

    @cached_property
    def verdict(self) -> bool | None:
        return split_verdict(self.reply.text)[0]

    @cached_property
    def explanation(self) -> str:
        """What follows the verdict; all of an answer that has none."""
        return split_verdict(self.reply.text)[1]

    @cached_property
    def parts(self) -> Parts:
        return read_parts(self.reply.text)

    @cached_property
    def text(self) -> str:
        """The text of the parts alone."""
        return " ".join(self.parts.values())

    @cached_property
    def check(self) -> Check:
        return self.checker.check(self.row, trace_text(self.label, self.parts))


def mentions_hint(text: str, titles: Sequence[str] = ()) -> Finding:
    """The words in which an explanation speaks of having been corrected, told or hinted at; `titles` may be quoted."""
    hint = _TOLD.search(text) or _CORRECTED.search(_without_quoted(text, set(titles)))
    return hint[0] if hint else None


def _refused(answer: Answer) -> Finding:
    if answer.reply.refused:
        return "the server says so"
    return refusal(answer.reply.text)


def _truncated(answer: Answer) -> Finding:
    return "its last sentence is not whole" if answer.reply.finish_reason == "length" else None


def _empty(answer: Answer) -> Finding:
    if answer.reply.text and answer.explanation:
        return None
    return "a verdict alone" if answer.reply.text else "reasoning alone" if answer.reply.reasoning else "no text"


def _leaked(answer: Answer) -> Finding:
    if answer.reflected:
        return mentions_hint(answer.explanation, [item.title for item in answer.checker.shown(answer.row).items])
    order = _TOLD.search(answer.explanation)
    return order[0] if order else None


def _no_verdict(answer: Answer) -> Finding:
    return answer.reply.text.split("\n")[0][:40] if answer.verdict is None else None


def _wrong_verdict(answer: Answer) -> Finding:
    return None if answer.verdict is answer.label else f"{WORDS[not answer.label]}, not {WORDS[answer.label]}"


def _malformed(answer: Answer) -> Finding:
    try:
        answer.parts  # noqa: B018
    except ValueError as fault:
        return str(fault)
    return None


def _wrong_language(answer: Answer) -> Finding:
    text = _QUOTED.sub(" ", answer.text)
    if not text.isascii():
        items = answer.checker.shown(answer.row).items
        names = {name for item in items for name in (item.title, *item.keywords) if name}
        for name in sorted(names, key=len, reverse=True):
            text = text.replace(name, " ")
        letters = Counter(_is_latin(char) for char in text if char.isalpha())
        if letters[False] > FOREIGN * letters.total():
            return f"{letters[False]} of {letters.total()} letters are of another script"
    words = _WORD.findall(text.lower())
    if len(words) >= ENGLISH_FROM and _ENGLISH.isdisjoint(words):
        return f"{len(words)} words without one that tells English"
    return None


def _too_short(answer: Answer) -> Finding:
    count = len(answer.text.split())
    return f"{count} words" if count < answer.limits.min_words else None


def _too_long(answer: Answer) -> Finding:
    count = len(answer.text.split())
    return f"{count} words" if count > answer.limits.max_words else None


def _repetitive(answer: Answer) -> Finding:
    words = answer.text.lower().split()
    triples = Counter(" ".join(words[at : at + 3]) for at in range(len(words) - 2))
    repeats = triples.total() - len(triples)
    return triples.most_common(1)[0][0] if repeats > REPEATED * triples.total() else None


def _ungrounded(answer: Answer) -> Finding:
    return _listed(answer.check.ungrounded)


def _contradicts_labels(answer: Answer) -> Finding:
    if not answer.check.agrees(answer.label):
        return f"it argues for {WORDS[not answer.label]}"
    return _listed(answer.check.contradicted)


def _listed(claims: Sequence[Claim]) -> Finding:
    return "; ".join(str(claim) for claim in claims) or None


FILTERS: dict[Fault, Callable[[Answer], Finding]] = {
    "refused": _refused,
    "truncated": _truncated,
    "empty": _empty,
    "leaked_hint": _leaked,
    "no_verdict": _no_verdict,
    "wrong_verdict": _wrong_verdict,
    "malformed": _malformed,
    "wrong_language": _wrong_language,
    "too_short": _too_short,
    "too_long": _too_long,
    "repetitive": _repetitive,
    "ungrounded": _ungrounded,
    "contradicts_labels": _contradicts_labels,
}
DUPLICATE: Fault = "duplicate"  # of an earlier trace: all of a run are compared, after the filters
FAULTS: tuple[Fault, ...] = (*FILTERS, DUPLICATE)


def find_fault(answer: Answer) -> tuple[Fault, str] | None:
    """The first fault of an answer and what is wrong, or None for an answer that can be kept."""
    for fault, look in FILTERS.items():
        finding = look(answer)
        if finding is not None:
            return fault, finding
    return None


def normalised(text: str) -> str:
    """A text as duplicates are compared: in lower case, its words parted by single spaces."""
    return " ".join(text.lower().split())


def _without_quoted(text: str, titles: set[str]) -> str:
    return _QUOTED.sub(lambda quoted: " " if (quoted[1] or quoted[2]) in titles else quoted[0], text)


def _is_latin(char: str) -> bool:
    return char.isascii() or unicodedata.name(char, "").startswith("LATIN")
