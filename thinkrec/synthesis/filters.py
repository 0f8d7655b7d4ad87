"""What keeps an answer from becoming a trace: `Fault` lists the faults in the order in which they are looked for.

What is counted are words of the explanation, its verdict left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from thinkrec.claims.answers import WORDS, read_parts, refusal, split_verdict, trace_text
from thinkrec.claims.checker import Checker
from thinkrec.claims.claims import Standing
from thinkrec.params import Learned
from thinkrec.shown import ShownItem
from thinkrec.teacher.answers import Answer
from thinkrec.teacher.trace_prompts import Fault

REPEATED = 0.25  # share of a text's word triples that may be repeats
FOREIGN = 0.1  # share of letters that may be of another script than the question's
SHORTEST, LONGEST = 8, 200  # words
LONGEST_SCRATCH = 1000  # words of scratch work, where that is learned
ENGLISH_FROM = 12  # words from which English cannot do without function words

# A claim that is not literally true, and the fault that it is.
_FAULT_OF: dict[Standing, Fault] = {
    "ungrounded": "ungrounded",
    "synonym": "synonym",
    "no_taste": "no_taste",
    "unsupported": "unsupported",
    "untrue": "contradicts_labels",
}
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


def find_fault(
    answer: Answer, row: int, label: bool, checker: Checker, *, reflected: bool, learn: Learned = "answer"
) -> tuple[Fault, str] | None:
    """The first fault of an answer about `row` and what is wrong, or None for an answer that can be kept.

    Faults that explain most come first: an answer that is cut off is not blamed for its missing lines. `reflected` says
    whether an earlier answer about the row was refused. Scratch work that is to be learned must be there, and not too
    long; what it says is not checked.
    """
    findings = _look_for_faults(answer, row, label, checker, reflected)
    if learn == "reasoning":
        findings = chain(_look_at_scratch(answer.scratch), findings)
    return next(((fault, finding) for fault, finding in findings if finding is not None), None)


def _look_for_faults(
    answer: Answer, row: int, label: bool, checker: Checker, reflected: bool
) -> Iterator[tuple[Fault, str | None]]:
    """Every fault in the order in which it is looked for, each with what is wrong in a few words, or None."""
    yield "refused", "the server says so" if answer.refused else refusal(answer.text)
    yield "truncated", "its last sentence is not whole" if answer.finish_reason == "length" else None
    verdict, explanation = split_verdict(answer.text)
    if not answer.text:
        yield "empty", "reasoning alone" if answer.reasoning_content.strip() else "no text"
    yield "empty", None if explanation else "a verdict alone"
    shown = checker.shown(row).items
    yield "leaked_hint", mentions_hint(explanation, [item.title for item in shown] if reflected else None)
    yield "no_verdict", answer.text.split("\n")[0][:40] if verdict is None else None
    yield "wrong_verdict", None if verdict is label else f"{WORDS[not label]}, not {WORDS[label]}"
    try:
        parts = read_parts(answer.text)
    except ValueError as fault:
        yield "malformed", str(fault)
        return
    text = " ".join(parts.values())
    yield "wrong_language", _find_foreign_words(text, shown)
    words = text.split()
    yield "too_short", f"{len(words)} words" if len(words) < SHORTEST else None
    yield "too_long", f"{len(words)} words" if len(words) > LONGEST else None
    yield "repetitive", _find_repeats(text.lower().split())
    check = checker.check(row, trace_text(label, parts))
    for standing, name in _FAULT_OF.items():
        yield name, "; ".join(map(str, check.of(standing))) or None
    yield "contradicts_labels", None if check.agrees(label) else f"it argues for {WORDS[not label]}"


def _look_at_scratch(scratch: str) -> Iterator[tuple[Fault, str | None]]:
    yield "empty", None if scratch else "no reasoning beside the answer"
    words = len(scratch.split())
    yield "too_long", f"{words} words of reasoning" if words > LONGEST_SCRATCH else None


def mentions_hint(text: str, titles: Iterable[str] | None) -> str | None:
    """The words in which an explanation says which answer was asked for, or None.

    After a reflect turn, `titles` are those that it may quote, and speaking of a correction counts, too.
    """
    hint = _TOLD.search(text)
    if hint is None and titles is not None:
        quotable = set(titles)
        text = _QUOTED.sub(lambda quoted: " " if (quoted[1] or quoted[2]) in quotable else quoted[0], text)
        hint = _CORRECTED.search(text)
    return hint[0] if hint else None


def _find_foreign_words(text: str, shown: Sequence[ShownItem]) -> str | None:
    """What tells that a text is not English, shown names and quotes left out."""
    text = _QUOTED.sub(" ", text)
    if not text.isascii():
        names = {name for item in shown for name in (item.title, *item.keywords) if name}
        for name in sorted(names, key=len, reverse=True):
            text = text.replace(name, " ")
        letters = Counter(
            char.isascii() or unicodedata.name(char, "").startswith("LATIN") for char in text if char.isalpha()
        )
        if letters[False] > FOREIGN * letters.total():
            return f"{letters[False]} of {letters.total()} letters are of another script"
    words = _WORD.findall(text.lower())
    if len(words) >= ENGLISH_FROM and _ENGLISH.isdisjoint(words):
        return f"{len(words)} words without one that tells English"
    return None


def _find_repeats(words: Sequence[str]) -> str | None:
    """The three words that a text repeats most, where too many of its triples are repeats."""
    triples = Counter(" ".join(words[at : at + 3]) for at in range(len(words) - 2))
    repeats = triples.total() - len(triples)
    return triples.most_common(1)[0][0] if repeats > REPEATED * triples.total() else None
