"""Which of several versions of a reason is best: the least untrue, then the one that names what matters to the user.

What was shown says what is true (`synthesis.verifier`). What matters is what the score rests on, which is the feature
model more than the text: a keyword *pulls* at a user as the items do that have it,

    pull(u, k) = e_u . sum over items i with k of (e_i - mean of e) / (number of items with k + SHRINKAGE)

where e are the feature model's vectors. Nothing of valid, test or a world's truth is in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from thinkrec.features.bank import Features
from thinkrec.params import Slot
from thinkrec.synthesis.claims import Check, Thesaurus
from thinkrec.synthesis.cues import Says
from thinkrec.synthesis.prompts import Instance
from thinkrec.synthesis.verifier import Catalogue, check

Floats = NDArray[np.float32]
Badness = tuple[int, int, int]
Pulls = Mapping[str, float]  # keyword, in lower case -> how hard it pulls towards liking

SHRINKAGE = 10  # items: a keyword of few items pulls little
IN_FAVOUR: dict[bool, tuple[Says, ...]] = {
    True: ("liked", "prefers", "target"), False: ("disliked", "avoids", "target")
}  # verdict -> what is said of a keyword of the target that speaks for it  # fmt: skip


class Tastes:
    """What users make of keywords, by the vectors (I, d) of the items that have them; zeros are unknown items."""

    def __init__(self, items_Id: Floats, keywords: Sequence[Sequence[str]]) -> None:
        known = np.any(items_Id != 0, axis=1)
        centred = items_Id - items_Id[known].mean(axis=0) if known.any() else items_Id
        total: dict[str, Floats] = defaultdict(lambda: np.zeros(items_Id.shape[1], np.float32))
        count: Counter[str] = Counter()
        for item in np.flatnonzero(known).tolist():
            for word in {word.lower() for word in keywords[item]}:
                total[word] += centred[item]
                count[word] += 1
        self._vectors = {word: vector / (count[word] + SHRINKAGE) for word, vector in total.items()}

    @classmethod
    def of(cls, features: Features, keywords: Sequence[Sequence[str]], slots: Sequence[Slot]) -> Self:
        """By the fit on all of train. A score of a model whose `slots` are empty rests on none of it: nothing pulls."""
        return cls(features.item_bank[: len(keywords)], keywords if slots else [[]] * len(keywords))

    def pulls(self, user_d: Floats, keywords: Iterable[str]) -> Pulls:
        """How hard each of these keywords pulls at a user (d,); 0 where nothing is known of it or of the user."""
        lower = (word.lower() for word in keywords)
        return {word: float(user_d @ self._vectors[word]) if word in self._vectors else 0.0 for word in lower}


def judge_of(
    read: Callable[[int], Instance], catalogue: Catalogue, thesaurus: Thesaurus, tastes: Tastes, features: Features
) -> Callable[[int, str], Badness]:
    """A function from a row of `features` and a text about it to how bad that is, by what `read` shows of the row."""

    def judge(row: int, text: str) -> Badness:
        shown = read(row)
        pulls = tastes.pulls(features.user_vectors(np.asarray([row]))[0], shown.target.keywords)
        return badness(check(text, shown.history, shown.target, catalogue, thesaurus), pulls)

    return judge


def badness(checked: Check, pulls: Pulls) -> Badness:
    """How bad a text is, the least being best: what of it is not so; what it passes over; how little it says.

    A conclusion that is not the text's own verdict is not so, either. Passed over are the target's keywords that pull
    harder towards the verdict than each that the text names in its favour, all if it names none.
    """
    true = sum(claim.true for claim in checked.claims)
    own = checked.conclusion in (None, checked.verdict)
    return len(checked.claims) - true + (not own), passed_over(checked, pulls), -true


def passed_over(checked: Check, pulls: Pulls) -> int:
    """How many of the target's keywords pull harder towards the verdict than each that is named in its favour."""
    if checked.verdict is None:
        return len(pulls)
    sign, speaks_for = 1 if checked.verdict else -1, IN_FAVOUR[checked.verdict]
    named = {claim.name.lower() for claim in checked.claims if claim.kind == "keyword" and claim.says in speaks_for}
    best = max((sign * pull for word, pull in pulls.items() if word in named), default=-np.inf)
    return sum(sign * pull > best for pull in pulls.values())
