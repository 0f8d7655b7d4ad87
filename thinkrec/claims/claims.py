"""Claims of a text about a shown row, each true, contradicted or never shown, and the check that lists them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Literal

from thinkrec.claims.cues import Says
from thinkrec.claims.names import Names, bare_words, words_of
from thinkrec.shown import ShownRow

Thesaurus = Callable[[str], str]  # keyword, in lower case -> what it shares with its synonyms


@dataclass(frozen=True, slots=True)
class Mention:
    """What a text says of a name, whether or not it is so."""

    kind: Literal["item", "keyword", "history"]
    name: str  # as the catalogue writes it, else as the text does
    says: Says
    count: tuple[int, int] | None  # "(2 of 3)" behind the name


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Mention):
    """One thing that a text says, and what was shown of it. A claim of kind "history" counts all titles."""

    target: bool  # it is the target, or a keyword of the target
    liked: int  # liked items of the history that it is, or that have it
    disliked: int
    history: Sequence[int]  # their places in the history, oldest first; none for a claim about all titles
    target_keywords: Sequence[int]  # places among the target's keywords that it is

    @property
    def of_target(self) -> bool:
        """Whether it speaks of the target alone; every other one speaks of the history."""
        return self.says in ("target", "lacks")

    @property
    def shown(self) -> bool:
        """Whether it was shown at all. What is said to be missing need not be."""
        return self.target or self.liked + self.disliked > 0 or self.says == "lacks" or self.kind == "history"

    @property
    def contradicted(self) -> bool:
        """Whether what was shown speaks against it: other labels, another count, a keyword that others have."""
        if not self.shown:
            return False
        of = {"liked": self.liked, "prefers": self.liked, "disliked": self.disliked, "avoids": self.disliked}
        if self.count is not None:
            some, of_all = self.count
            possible = [of[self.says]] if self.says in of else [self.liked, self.disliked]
            if of_all != self.liked + self.disliked or some not in possible:
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
        return self.shown and not self.contradicted

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
        return [claim for claim in self.claims if not claim.shown]

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


class ShownNames:
    """The names in a shown row, by which a text's claims are found, and which items and keywords each belongs to."""

    def __init__(self, row: ShownRow, thesaurus: Thesaurus) -> None:
        self.row = row
        self._thesaurus = thesaurus
        self._keywords = [[word.lower() for word in item.keywords] for item in row.items]
        self._meanings = [[thesaurus(word) for word in words] for words in self._keywords]
        self._places: dict[str, list[list[int]]] = {}
        self.titles = Names(cased=True)
        self.quoted: dict[tuple[str, ...], str] = {}
        for item in row.items:
            self.quoted[bare_words(item.title)] = item.title
            self.titles.add(item.title, item.title)
        for item in row.items:  # shorter forms give way to whole titles
            short = _short(item.title)
            self.quoted.setdefault(bare_words(short), item.title)
            self.titles.add(short, item.title)
        self.keywords = Names(cased=False)
        self._exact = dict.fromkeys(word for words in self._keywords for word in words)
        for word in self._exact:
            self.keywords.add(word, word)

    def is_target(self, title: str) -> bool:
        """Whether a title is the target's and no other's."""
        return title == self.row.target.title and all(item.title != title for item in self.row.history)

    def exact_keyword(self, written: str, shown: str) -> str:
        """Of keywords that are looked up alike, the one that was shown just as it is `written`, else `shown`."""
        return written if written in self._exact else shown

    def claim(self, mention: Mention) -> Claim:
        """A mention with what was shown of it."""
        past, target = self.row.history, self.row.target
        target_keywords: list[int] = []
        if mention.kind == "item":
            history = [place for place, item in enumerate(past) if item.title == mention.name]
            in_target = target.title == mention.name
        elif mention.kind == "keyword":
            *in_history, target_keywords = self._keyword_places(mention.name)
            history = [place for place, places in enumerate(in_history) if places]
            in_target = bool(target_keywords)
        else:
            history, in_target = [], False
        counted = past if mention.kind == "history" else [past[place] for place in history]
        return Claim(
            kind=mention.kind,
            name=mention.name,
            says=mention.says,
            count=mention.count,
            target=in_target,
            liked=sum(item.liked is True for item in counted),
            disliked=sum(item.liked is False for item in counted),
            history=history,
            target_keywords=target_keywords,
        )

    def _keyword_places(self, keyword: str) -> list[list[int]]:
        """By item, the places of its keywords that are `keyword`: by meaning, else in another number, else of its kin.

        The looser sense counts only where no item has the keyword in the stricter one.
        """
        keyword = keyword.lower()
        if keyword not in self._places:
            meaning = self._thesaurus(keyword)
            places = [_places_where(meaning.__eq__, meanings) for meanings in self._meanings]
            for alike in (_same_but_number, _kin):
                if not any(places):
                    places = [_places_where(partial(alike, keyword), words) for words in self._keywords]
            self._places[keyword] = places
        return self._places[keyword]


def _places_where(holds: Callable[[str], bool], words: Sequence[str]) -> list[int]:
    return [place for place, word in enumerate(words) if holds(word)]


def _same_but_number(first: str, second: str) -> bool:
    return words_of(first, False) == words_of(second, False)


def _kin(first: str, second: str) -> bool:
    """Whether two words are forms of one: "suspense" and "suspenseful", "romantic" and "romance"."""
    shared = sum(takewhile(bool, map(operator.eq, first, second)))
    return shared >= 5 and max(len(first), len(second)) - shared <= 4


def _short(title: str) -> str:
    """A title as it is mentioned: without subtitle, alternative and year."""
    return re.split(r"[:(\[]", title, maxsplit=1)[0].strip() or title
