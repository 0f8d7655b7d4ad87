"""What a text claims of a history and a target, and what was shown of it: each claim true, false or never shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from thinkrec.claims.cues import Says
from thinkrec.claims.names import Names, bare_words, words_of
from thinkrec.claims.prompts import Shown

Thesaurus = Callable[[str], str]  # keyword, in lower case -> what it shares with its synonyms


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One thing that a text says, and what was shown of it."""

    kind: Literal["item", "keyword", "history"]
    name: str  # as the catalogue writes it, or, where that does not know it, as it was written
    says: Says
    count: tuple[int, int] | None  # "(2 of 3)" behind the name
    target: bool  # it is the target, or a keyword of the target
    liked: int  # liked items of the history that it is, or that have it
    disliked: int

    @property
    def of_target(self) -> bool:
        """Whether it speaks of the target alone; every other one speaks of the history."""
        return self.says in ("target", "lacks")

    @property
    def found(self) -> bool:
        """Whether it was shown at all. What is said to be missing need not be."""
        return self.target or self.liked + self.disliked > 0 or self.says == "lacks" or self.kind == "history"

    @property
    def contradicted(self) -> bool:
        """Whether what was shown speaks against it: other labels, another count, a keyword that others have."""
        if not self.found:
            return False
        of = {"liked": self.liked, "prefers": self.liked, "disliked": self.disliked, "avoids": self.disliked}
        if self.count is not None:
            some, seen = self.count
            possible = [of[self.says]] if self.says in of else [self.liked, self.disliked]
            if seen != self.liked + self.disliked or some not in possible:
                return True
        match self.says:
            case "liked" | "disliked":
                return self.kind != "history" and not of[self.says]
            case "prefers" | "avoids":  # a taste may be read out of more than one keyword's own titles
                return not of[self.says] and self.liked + self.disliked > 0
            case "target":
                return not self.target
            case "lacks":
                return self.target
            case "named":
                return False

    @property
    def true(self) -> bool:
        """Whether it was shown, and shown so."""
        return self.found and not self.contradicted

    def __str__(self) -> str:
        count = "" if self.count is None else f" ({self.count[0]} of {self.count[1]})"
        return f"{self.says} {self.name}{count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a text claims, and the verdicts that it begins and ends with (None where there is none)."""

    verdict: bool | None
    conclusion: bool | None
    claims: list[Claim]

    @property
    def ungrounded(self) -> list[Claim]:
        """Claims about what was never shown."""
        return [claim for claim in self.claims if not claim.found]

    @property
    def contradicted(self) -> list[Claim]:
        """Claims that what was shown speaks against."""
        return [claim for claim in self.claims if claim.contradicted]

    @property
    def true(self) -> bool:
        """Whether it claims anything, and nothing that is not so."""
        return bool(self.claims) and all(claim.true for claim in self.claims)

    def agrees(self, verdict: bool) -> bool:
        """Whether it states `verdict` and does not argue itself into the other one."""
        return self.verdict == verdict and self.conclusion in (None, verdict)


class Sight:
    """What a text may speak of: the history and the target, indexed by title and keyword."""

    def __init__(self, history: Sequence[Shown], target: Shown, thesaurus: Thesaurus) -> None:
        self._history, self._target, self._thesaurus = history, target, thesaurus
        self._keywords = [[word.lower() for word in shown.keywords] for shown in (*history, target)]
        self._meanings = [set(map(thesaurus, words)) for words in self._keywords]
        self.titles = Names(cased=True)
        self.quoted: dict[tuple[str, ...], str] = {}
        for shown in (*history, target):
            self.quoted[bare_words(shown.title)] = shown.title
            self.titles.add(shown.title, shown.title)
        for shown in (*history, target):  # shorter forms give way to whole titles
            short = _short(shown.title)
            self.quoted.setdefault(bare_words(short), shown.title)
            self.titles.add(short, shown.title)
        self.keywords = Names(cased=False)
        self._exact = dict.fromkeys(word for words in self._keywords for word in words)
        for word in self._exact:
            self.keywords.add(word, word)

    def is_target(self, title: str) -> bool:
        """Whether a title is the target's and no other's."""
        return title == self._target.title and all(shown.title != title for shown in self._history)

    def keyword(self, written: str, known: str) -> str:
        """Of keywords that are written alike, the one that was shown as it is `written`."""
        return written if written in self._exact else known

    def claim(
        self,
        kind: Literal["item", "keyword", "history"],
        name: str,
        says: Says,
        count: tuple[int, int] | None,
    ) -> Claim:
        """A claim with what was shown of it."""
        if kind == "history":
            has = [*[True] * len(self._history), False]
        elif kind == "item":
            has = [shown.title == name for shown in (*self._history, self._target)]
        else:
            has = self.having(name)
        labels = [shown.liked for shown, there in zip(self._history, has[:-1], strict=True) if there]
        return Claim(
            kind=kind,
            name=name,
            says=says,
            count=count,
            target=has[-1],
            liked=sum(liked is True for liked in labels),
            disliked=sum(liked is False for liked in labels),
        )

    def having(self, keyword: str) -> list[bool]:
        """Which of the history and the target have a keyword: by meaning, else in another number, else of its kin."""
        keyword = keyword.lower()
        meant = self._thesaurus(keyword)
        has = [meant in meanings for meanings in self._meanings]
        for alike in (_same_but_number, _kin):
            if not any(has):
                has = [any(alike(keyword, word) for word in words) for words in self._keywords]
        return has


def _same_but_number(one: str, other: str) -> bool:
    return words_of(one, False) == words_of(other, False)


def _kin(one: str, other: str) -> bool:
    """Whether two words are forms of one: "suspense" and "suspenseful", "romantic" and "romance"."""
    shared = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return shared >= 5 and max(len(one), len(other)) - shared <= 4


def _short(title: str) -> str:
    """A title as it is mentioned: without subtitle, alternative and year."""
    return re.split(r"[:(\[]", title, maxsplit=1)[0].strip() or title
