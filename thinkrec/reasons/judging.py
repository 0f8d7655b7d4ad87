"""Which of several versions of a reason is best: the least broken, then the least untrue, then what names what matters.

What was shown says what is true (`claims.checker`). What matters is what the score rests on, which is the feature
model more than the text: a keyword *pulls* at a user as the items do that have it,

    pull(u, k) = e_u . sum over items i with k of (e_i - mean of e) / (number of items with k + SHRINKAGE)

where e are the feature model's vectors. Nothing of valid, test or a world's truth is in it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from thinkrec.claims.checker import Checker
from thinkrec.claims.claims import Check
from thinkrec.claims.cues import Says
from thinkrec.features.artefact import Features
from thinkrec.params import Slot

Floats = NDArray[np.float32]
Badness = tuple[int, int, int, int, int]
Pulls = Mapping[str, float]  # keyword, in lower case -> how hard it pulls towards liking

SHRINKAGE = 10  # items: a keyword of few items pulls little
IN_FAVOUR: dict[bool, tuple[Says, ...]] = {
    True: ("liked", "prefers", "target"), False: ("disliked", "avoids", "target")
}  # verdict -> what is said of a keyword of the target that speaks for it  # fmt: skip


class Tastes:
    """What users make of keywords, by the vectors (I, d) of the items that have them; zeros are unknown items."""

    def __init__(self, items_Id: Floats, keywords: Sequence[Sequence[str]]) -> None:
        fitted = np.any(items_Id != 0, axis=1)
        centred = items_Id - items_Id[fitted].mean(axis=0) if fitted.any() else items_Id
        total: dict[str, Floats] = defaultdict(lambda: np.zeros(items_Id.shape[1], np.float32))
        count: Counter[str] = Counter()
        for item in np.flatnonzero(fitted).tolist():
            for word in {word.lower() for word in keywords[item]}:
                total[word] += centred[item]
                count[word] += 1
        self._vectors = {word: vector / (count[word] + SHRINKAGE) for word, vector in total.items()}

    @classmethod
    def of(cls, features: Features, keywords: Sequence[Sequence[str]], slots: Sequence[Slot]) -> Self:
        """By the fit on all of train. A score of a model whose `slots` are empty rests on none of it: nothing pulls."""
        return cls(features.item_vectors[: len(keywords)], keywords if slots else [[]] * len(keywords))

    def pulls(self, user_d: Floats, keywords: Iterable[str]) -> Pulls:
        """How hard each of these keywords pulls at a user (d,); 0 where nothing is known of it or of the user."""
        lower = (word.lower() for word in keywords)
        return {word: float(user_d @ self._vectors[word]) if word in self._vectors else 0.0 for word in lower}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonJudge:
    """What `decoding` holds reasons to; `checker` and `features` are of the same rows."""

    checker: Checker
    tastes: Tastes
    features: Features

    def badness(self, row: int, text: str) -> Badness:
        """How bad a text about a row is."""
        return badness(text, self.checker.check(row, text), self._pulls(row))

    def wanted(self, row: int, text: str) -> str:
        """The keyword of the target that a text about a row had better name next; empty if none."""
        return wanted(self.checker.check(row, text), self._pulls(row))

    def _pulls(self, row: int) -> Pulls:
        user_d = self.features.user_vectors_of(np.asarray([row]))[0]
        return self.tastes.pulls(user_d, self.checker.shown(row).target.keywords)


def badness(text: str, checked: Check, pulls: Pulls) -> Badness:
    """How bad a text is, the least being best, by one thing after the other.

    How much of it is broken. How much is untrue, a conclusion against the text's own verdict with it. How many of the
    target's keywords pull harder towards the verdict than the hardest that the text names in its favour, then than the
    second. How little it says.
    """
    true = sum(claim.true for claim in checked.claims)
    untrue = len(checked.claims) - true + (checked.conclusion not in (None, checked.verdict))
    return broken(text, pulls), untrue, *passed_over(checked, pulls), -true


def broken(text: str, keywords: Iterable[str]) -> int:
    """Quotations that never end, sentences that begin small or have no end, keywords that a sentence names again."""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    small = sum(sentence[:1].islower() for sentence in sentences)
    endless = not sentences[-1].endswith((".", "!", "?"))
    mentions = [
        len(re.findall(rf"\b{re.escape(word)}\b", sentence.lower())) for sentence in sentences for word in keywords
    ]
    return text.count('"') % 2 + small + endless + sum(count - 1 for count in mentions if count)


def passed_over(checked: Check, pulls: Pulls) -> tuple[int, int]:
    """How many of the target's keywords pull harder towards the verdict than the best and the second that are named.

    All, where none, or no second, is named in favour of the verdict.
    """
    if checked.verdict is None:
        return len(pulls), len(pulls)
    ours = towards(checked.verdict, pulls)
    best = sorted((ours[word] for word in in_favour(checked) & set(ours)), reverse=True)
    first, second = [*best, -np.inf, -np.inf][:2]
    return sum(pull > first for pull in ours.values()), sum(pull > second for pull in ours.values())


def wanted(checked: Check, pulls: Pulls) -> str:
    """The keyword that pulls hardest towards a text's verdict, of those that it does not name; empty if none pulls."""
    if checked.verdict is None:
        return ""
    named = in_favour(checked)
    ours = {word: pull for word, pull in towards(checked.verdict, pulls).items() if pull > 0 and word not in named}
    return max(ours, key=lambda word: ours[word], default="")


def towards(verdict: bool, pulls: Pulls) -> Pulls:
    """How hard keywords pull towards a verdict."""
    return {word: pull if verdict else -pull for word, pull in pulls.items()}


def in_favour(checked: Check) -> set[str]:
    """The keywords that a text names in favour of its verdict, in lower case."""
    speaks_for = IN_FAVOUR[bool(checked.verdict)]
    return {claim.name.lower() for claim in checked.claims if claim.kind == "keyword" and claim.says in speaks_for}
