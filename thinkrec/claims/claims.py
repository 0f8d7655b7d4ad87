"""Claims of a text about a shown row, how each stands to what was shown, and the check that lists them."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Literal, get_args

from thinkrec.claims.cues import Says
from thinkrec.claims.names import Names, bare_words, words_of
from thinkrec.shown import ShownRow

Standing = Literal["true", "synonym", "ungrounded", "no_taste", "unsupported", "untrue"]
# What can be wrong with a claim: only a synonym was shown; nothing was; it is no matter of taste (a place, a name, a
# year); fewer than SUPPORT titles, or not most of them, bear the taste out; what was shown speaks against it.
UNTRUE: tuple[Standing, ...] = get_args(Standing)[1:]
SUPPORT = 2  # titles that have a keyword before anybody can be said to like or dislike it
LIKING: dict[Says, bool] = {"liked": True, "prefers": True, "disliked": False, "avoids": False}


@dataclass(frozen=True, slots=True)
class Thesaurus:
    """Which words mean the same: those with equal `meaning`s, of keywords in lower case; `name` is for readers."""

    name: str
    meaning: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Mention:
    """What a text says of a name, whether or not it is so."""

    kind: Literal["item", "keyword", "history"]
    name: str  # as the catalogue writes it, else as the text does
    says: Says
    count: tuple[int, int] | None  # "(2 of 3)" behind the name
    titles: tuple[str, ...] = ()  # of which the text says it by name: "liked war in Night"

    @property
    def taste(self) -> bool:
        """Whether it says that the user likes or dislikes a keyword."""
        return self.kind == "keyword" and self.says in LIKING


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Mention):
    """One thing that a text says, and what was shown of it. A claim of kind "history" counts all titles.

    It is true *literally* if the very word was shown (in whatever number), and *by meaning* if it is so once the words
    that a thesaurus calls the same, or another form of the word, stand for it. What was shown is counted literally,
    except for a claim that is true by meaning alone.
    """

    standing: Standing
    target: bool  # it is the target, or a keyword of the target
    liked: int  # liked items of the history that it is, or that have it
    disliked: int
    history: Sequence[int]  # their places in the history, oldest first; none for a claim about all titles
    target_keywords: Sequence[int]  # places among the target's keywords that it is
    synonyms: Sequence[str] = ()  # that were shown, of a claim that is true by meaning alone

    @property
    def of_target(self) -> bool:
        """Whether it speaks of the target alone; every other one speaks of the history."""
        return self.says in ("target", "lacks")

    @property
    def true(self) -> bool:
        """Whether it is literally true."""
        return self.standing == "true"

    @property
    def true_by_meaning(self) -> bool:
        """Whether it is true, literally or by meaning."""
        return self.standing in ("true", "synonym")

    def __str__(self) -> str:
        titles = f" in {' and '.join(self.titles)}" if self.titles else ""
        count = "" if self.count is None else f" ({self.count[0]} of {self.count[1]})"
        synonyms = f" \u2248 {', '.join(self.synonyms)}" if self.synonyms else ""
        return f"{self.says} {self.name}{titles}{count}{synonyms}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a text claims, and the verdicts that it begins and ends with (None where there is none)."""

    verdict: bool | None
    conclusion: bool | None
    claims: list[Claim]
    ends: list[int]  # characters of the text up to the end of each claim, where it is first made

    def of(self, standing: Standing) -> list[Claim]:
        """The claims of one standing."""
        return [claim for claim in self.claims if claim.standing == standing]

    @property
    def true(self) -> bool:
        """Whether it claims anything, and nothing that is not literally so."""
        return bool(self.claims) and all(claim.true for claim in self.claims)

    @property
    def true_by_meaning(self) -> bool:
        """Whether it claims anything, and nothing that is not so by meaning at least."""
        return bool(self.claims) and all(claim.true_by_meaning for claim in self.claims)

    def agrees(self, verdict: bool) -> bool:
        """Whether it states `verdict` and does not argue itself into the other one."""
        return self.verdict == verdict and self.conclusion in (None, verdict)


class ShownNames:
    """The names in a shown row, by which a text's claims are found, and which items and keywords each belongs to."""

    def __init__(self, row: ShownRow, thesaurus: Thesaurus, proper_names: Container[str] = ()) -> None:
        """`proper_names` are words that name places, people and makers, in lower case: nobody's taste."""
        self.row = row
        self._thesaurus, self._proper_names = thesaurus, proper_names
        self._keywords = [[word.lower() for word in item.keywords] for item in row.items]
        self._claims: dict[Mention, Claim] = {}
        self._meanings = [[thesaurus.meaning(word) for word in words] for words in self._keywords]
        self.titles = Names(cased=True)
        self.quoted: dict[tuple[str, ...], str] = {}
        shown = dict.fromkeys(item.title for item in row.items)
        for title in shown:
            self.quoted[bare_words(title, dated=True)] = title
            self.titles.add(title, title)
        # Shorter forms give way to whole titles; one that two titles share is a name of neither.
        shorts = Counter(map(_short, shown))
        bare = Counter(map(bare_words, shown))
        for title in shown:
            short = _short(title)
            meant = title if shorts[short] == 1 else short
            self.quoted.setdefault(bare_words(title), title if bare[bare_words(title)] == 1 else short)
            self.quoted.setdefault(bare_words(short), meant)
            self.titles.add(short, meant)
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
        """A mention with what was shown of it; worked out once."""
        if mention not in self._claims:
            self._claims[mention] = self._look_up(mention)
        return self._claims[mention]

    def _look_up(self, mention: Mention) -> Claim:
        if mention.kind != "keyword":
            return self._claim(mention, [[0] * (item.title == mention.name) for item in self.row.items])
        keyword = mention.name.lower()
        literal = self._claim(mention, self._literal(keyword))
        if literal.true and mention.says != "lacks":
            return literal
        by_meaning = self._by_meaning(keyword)
        looser = self._claim(mention, by_meaning)
        if mention.says == "lacks":  # what has a synonym of it does not lack it
            return looser
        shown = [words[place] for words, at in zip(self._keywords, by_meaning, strict=True) for place in at]
        synonyms = tuple(dict.fromkeys(word for word in shown if word != keyword))
        return replace(looser, standing="synonym", synonyms=synonyms) if looser.true else literal

    def _claim(self, mention: Mention, places: Sequence[Sequence[int]]) -> Claim:
        """A mention as it stands if its name is found at these `places` of each item, the target last."""
        past = self.row.history
        history = [place for place, inside in enumerate(places[:-1]) if inside]
        counted = past if mention.kind == "history" else [past[place] for place in history]
        claim = Claim(
            kind=mention.kind,
            name=mention.name,
            says=mention.says,
            count=mention.count,
            titles=mention.titles,
            standing="true",
            target=bool(places[-1]),
            liked=sum(item.liked is True for item in counted),
            disliked=sum(item.liked is False for item in counted),
            history=history,
            target_keywords=places[-1] if mention.kind == "keyword" else [],
        )
        return replace(claim, standing=self._standing(claim))

    def _standing(self, claim: Claim) -> Standing:
        """Whether a claim is so, by what it counts."""
        seen, liking = claim.liked + claim.disliked, LIKING.get(claim.says)
        if not (claim.target or seen or claim.says == "lacks" or claim.kind == "history"):
            return "ungrounded"
        agreeing = claim.liked if liking else claim.disliked  # titles that bear a liking (or disliking) out
        if claim.count is not None:
            possible = [claim.liked, claim.disliked] if liking is None else [agreeing]
            if claim.count[1] != seen or claim.count[0] not in possible:
                return "untrue"
        if claim.of_target:
            return "true" if claim.target == (claim.says == "target") else "untrue"
        if liking is None or claim.kind == "history":
            return "true"
        if not agreeing and (seen or claim.says in ("liked", "disliked")):
            return "untrue"
        if claim.kind == "item":
            return "true"
        if is_no_taste(claim.name.lower(), self._proper_names):
            return "no_taste"
        if claim.titles:
            past = self.row.history
            bearing = {past[place].title for place in claim.history if past[place].liked is liking}
            return "true" if bearing.issuperset(claim.titles) else "untrue"
        return "true" if seen >= SUPPORT and 2 * agreeing > seen else "unsupported"

    def _literal(self, keyword: str) -> list[list[int]]:
        """By item, the places of its keywords that are `keyword`; where no item has it, in another number."""
        places = [_places_where(keyword.__eq__, words) for words in self._keywords]
        if any(places):
            return places
        return [_places_where(partial(_same_but_number, keyword), words) for words in self._keywords]

    def _by_meaning(self, keyword: str) -> list[list[int]]:
        """By item, the places of its keywords that mean what `keyword` does; where none does, of its kin."""
        meaning = self._thesaurus.meaning(keyword)
        places = [_places_where(meaning.__eq__, meanings) for meanings in self._meanings]
        return places if any(places) else [_places_where(partial(_kin, keyword), words) for words in self._keywords]


def is_no_taste(keyword: str, proper_names: Container[str]) -> bool:
    """Whether a keyword, in lower case, is no matter of taste: it holds a digit, or names and nothing else."""
    words = [word for word in words_of(keyword) if word[0].isalnum()]
    return any(char.isdigit() for char in keyword) or (bool(words) and all(word in proper_names for word in words))


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
