"""What keeps an answer from becoming a trace: one filter per fault, tried in the order of `FILTERS`.

A filter looks at one answer and says what is wrong with it, or None. The order is that of what explains most: an
answer that is cut off is not blamed for its missing lines. `near_duplicates` looks at all traces together and comes
last. Figures that users vary are parameters (`traces`), the others are constants here.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from thinkrec.claims.claims import Check, Claim, Thesaurus
from thinkrec.claims.prompts import Fault, Instance
from thinkrec.claims.structure import Parts, read_parts, trace_text
from thinkrec.claims.verdict import WORDS, split_verdict
from thinkrec.claims.verifier import Catalogue, check
from thinkrec.params import TraceParams
from thinkrec.teacher.answers import Reply

Finding = str | None  # what is wrong, in a few words; None: nothing

SHINGLE = 3  # words in a row that make one piece of a text, here and in `near_duplicates`
REPEATED = 0.25  # share of a text's shingles that may be repeats
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
# Once its earlier answer has been talked about, an explanation must not say so. Phrases, not single common words: it
# may well speak of "a hint of melancholy" or of a "right turn".
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
_REFUSAL = re.compile(
    r"\W*(?:I(?:['\u2019]m| am) (?:very )?(?:sorry|afraid)\b"
    r"|(?:very )?sorry\b(?=\s*[,.:;!\u2013\u2014-]|\s+(?:but|I)\b)"
    r"|(?:Unfortunately,? )?I (?:can(?:not|['\u2019]t)|am unable|am not able|won['\u2019]t|will not|must decline)\b"
    r"|I['\u2019]m (?:unable|not able)\b|As an AI\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What all answers of a run are held against."""

    limits: TraceParams
    catalogue: Catalogue
    thesaurus: Thesaurus  # the teacher's


@dataclass(frozen=True, kw_only=True)
class Given:
    """One answer and what it is held against; `again` says whether an earlier answer of the row was talked about."""

    reply: Reply
    instance: Instance
    label: bool
    again: bool
    rules: Rules

    @cached_property
    def verdict(self) -> bool | None:
        return None if self._split is None else self._split[0]

    @cached_property
    def body(self) -> str:
        """What follows the verdict; all of an answer that has none."""
        return self.reply.text if self._split is None else self._split[1]

    @cached_property
    def parts(self) -> Parts:
        return read_parts(self.reply.text)

    @cached_property
    def explanation(self) -> str:
        return " ".join(self.parts.values())

    @cached_property
    def check(self) -> Check:
        instance, rules = self.instance, self.rules
        text = trace_text(self.label, self.parts)
        return check(text, instance.history, instance.target, rules.catalogue, rules.thesaurus)

    @cached_property
    def _split(self) -> tuple[bool, str] | None:
        return split_verdict(self.reply.text)


def mentions_hint(text: str, titles: Sequence[str] = ()) -> Finding:
    """The words in which an explanation speaks of having been corrected, told or hinted at; `titles` may be quoted."""
    found = _TOLD.search(text) or _CORRECTED.search(_without_quoted(text, set(titles)))
    return found[0] if found else None


def refusal(text: str) -> Finding:
    """The words in which an answer begins by refusing."""
    found = _REFUSAL.match(text)
    return found[0].strip() if found else None


def _refused(given: Given) -> Finding:
    if given.reply.refused:
        return "the server says so"
    return refusal(given.reply.text)


def _truncated(given: Given) -> Finding:
    return "its last sentence is not whole" if given.reply.finish_reason == "length" else None


def _empty(given: Given) -> Finding:
    if given.reply.text and given.body:
        return None
    return "a verdict alone" if given.reply.text else "reasoning alone" if given.reply.reasoning else "no text"


def _leaked(given: Given) -> Finding:
    if given.again:
        return mentions_hint(given.body, given.instance.titles)
    found = _TOLD.search(given.body)
    return found[0] if found else None


def _no_verdict(given: Given) -> Finding:
    return given.reply.text.split("\n")[0][:40] if given.verdict is None else None


def _wrong_verdict(given: Given) -> Finding:
    return None if given.verdict is given.label else f"{WORDS[not given.label]}, not {WORDS[given.label]}"


def _malformed(given: Given) -> Finding:
    try:
        given.parts  # noqa: B018
    except ValueError as fault:
        return str(fault)
    return None


def _wrong_language(given: Given) -> Finding:
    text = _QUOTED.sub(" ", given.explanation)
    if not text.isascii():
        for name in sorted(filter(None, given.instance.names), key=len, reverse=True):
            text = text.replace(name, " ")
        letters = Counter(_is_latin(char) for char in text if char.isalpha())
        if letters[False] > FOREIGN * letters.total():
            return f"{letters[False]} of {letters.total()} letters are of another script"
    words = _WORD.findall(text.lower())
    if len(words) >= ENGLISH_FROM and _ENGLISH.isdisjoint(words):
        return f"{len(words)} words without one that tells English"
    return None


def _too_short(given: Given) -> Finding:
    count = len(given.explanation.split())
    return f"{count} words" if count < given.rules.limits.min_words else None


def _too_long(given: Given) -> Finding:
    count = len(given.explanation.split())
    return f"{count} words" if count > given.rules.limits.max_words else None


def _repetitive(given: Given) -> Finding:
    words = given.explanation.lower().split()
    pieces = Counter(" ".join(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1))
    repeats = pieces.total() - len(pieces)
    return pieces.most_common(1)[0][0] if repeats > REPEATED * pieces.total() else None


def _ungrounded(given: Given) -> Finding:
    return _listed(given.check.ungrounded)


def _contradicts_labels(given: Given) -> Finding:
    if not given.check.agrees(given.label):
        return f"it argues for {WORDS[not given.label]}"
    return _listed(given.check.contradicted)


def _listed(claims: Sequence[Claim]) -> Finding:
    return "; ".join(str(claim) for claim in claims) or None


FILTERS: dict[Fault, Callable[[Given], Finding]] = {
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
NEAR_DUPLICATE: Fault = "near_duplicate"
FAULTS: tuple[Fault, ...] = (*FILTERS, NEAR_DUPLICATE)


def find_fault(given: Given) -> tuple[Fault, str] | None:
    """The first fault of an answer and what was found, or None for an answer that can be kept."""
    for fault, look in FILTERS.items():
        found = look(given)
        if found is not None:
            return fault, found
    return None


def near_duplicates(texts: Sequence[str], most: float) -> list[tuple[int, float] | None]:
    """For each text the earlier one that is too like it, and how like; None for a text that may stay.

    Likeness is the Jaccard index of the texts' shingles, in 0..1, and too like is more than `most`. Texts that are
    too like an earlier one are not compared with later ones. Exact: two sets so like have a shingle in common among the
    rarest of each, so only texts that share one of those are compared.
    """
    sets = _shingles(texts)
    shingle, count = np.unique(np.concatenate([*sets, np.empty(0, np.int64)]), return_counts=True)
    index: dict[int, list[int]] = defaultdict(list)
    like: list[tuple[int, float] | None] = []
    for number, own in enumerate(sets):
        rarest = own[np.argsort(count[np.searchsorted(shingle, own)], kind="stable")]
        rarest = rarest[: len(own) - math.ceil(most * len(own) - 1e-9) + 1]
        near = sorted({other for piece in rarest.tolist() for other in index[piece]})
        found = None
        for other in near:
            short, long = sorted((len(own), len(sets[other])))
            if short <= most * long:
                continue
            shared = len(np.intersect1d(own, sets[other], assume_unique=True))
            likeness = shared / (short + long - shared)
            if likeness > most:
                found = (other, likeness)
                break
        like.append(found)
        if found is None:
            for piece in rarest.tolist():
                index[piece].append(number)
    return like


def _shingles(texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
    """Each text's shingles as sorted numbers, equal for equal words; a shorter text is one shingle."""
    numbers: dict[str, int] = {}
    bits = 63 // SHINGLE
    sets = []
    for text in texts:
        words = [numbers.setdefault(word, len(numbers) + 1) % 2**bits for word in text.lower().split()]
        padded = np.asarray([*words, *[0] * (SHINGLE - len(words))], np.int64)
        pieces = [padded[at : len(padded) - SHINGLE + 1 + at] << bits * at for at in range(SHINGLE)]
        sets.append(np.unique(np.bitwise_or.reduce(pieces)))
    return sets


def _without_quoted(text: str, titles: set[str]) -> str:
    return _QUOTED.sub(lambda found: " " if (found[1] or found[2]) in titles else found[0], text) if titles else text


def _is_latin(char: str) -> bool:
    return char.isascii() or unicodedata.name(char, "").startswith("LATIN")
