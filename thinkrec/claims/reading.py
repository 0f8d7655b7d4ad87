"""Are a reason's claims true of what was shown? (METHOD section 2: what may be kept; section 6: what is measured.)

A reason is anybody's text: the offline teacher's, a language model's free prose, our student's. Read from left to
right, it names titles and keywords, and the cues around them (`claims.cues`) make claims of that: shown to be liked
or disliked, preferred or avoided, had or lacked by the target. Every claim is looked up in the history and the target.

What is a claim:

- a title: one shown, or any title of the catalogue in its own case (of one word, only one that is shown or quoted);
- whatever is quoted and reads like a name, known or not;
- a keyword that is shown, if a cue stands before it in its clause or after it ("... was liked"), or the target's title
  and a colon do;
- a keyword of the catalogue that is not shown, only as an element of the list right behind a cue: any other word of
  prose is the keyword of some item;
- anything with a count behind it, "(2 of 3)", and a single word behind a title and a colon.

A keyword without a count is said of the titles in its clause, if any: "Night, a war film", or "war in Night".

Cues are English. A count of all titles ("4 of 10 titles were liked") is a claim about the history.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Literal

from thinkrec.claims import cues
from thinkrec.claims.answers import conclusion_of, split_verdict
from thinkrec.claims.claims import Check, Mention, ShownNames
from thinkrec.claims.cues import Says
from thinkrec.claims.names import Catalogue, Names, Token, bare_words, looks_like_a_name, tokens_of

_QUOTED = re.compile(
    r"\"([^\"\n]{1,160})\"|\u201c([^\u201c\u201d\n]{1,160})\u201d|\u00ab([^\u00ab\u00bb\n]{1,160})\u00bb"
    r"|(?<!\w)'((?:[^'\n]|(?<=\w)'(?=\w)){1,160})'(?!\w)"
    r"|\u2018((?:[^\u2018\u2019\n]|(?<=\w)\u2019(?=\w)){1,160})\u2019(?!\w)"
    r"|(?<![\w*])\*([^*\n]{1,160})\*(?![\w*])"
)
_TOTAL = re.compile(
    r"(?P<some>\d{1,4}) (?:out )?of (?:the |all )?(?P<all>\d{1,4}) (?:(?!liked|disliked)[\w-]+ ){0,3}"
    r"(?:was|were) (?P<says>liked|disliked)\b",
    re.IGNORECASE,
)


def check_text(text: str, names: ShownNames, catalogue: Catalogue) -> Check:
    """What `text` claims, held against the shown row of `names`: once each, in order, counts of all titles last."""
    verdict, body = split_verdict(text)
    reading = _Reading(body, names, catalogue)
    ends: dict[Mention, int] = {}
    for named in filter(attrgetter("claimed"), reading.mentions):
        ends.setdefault(_settled(named), reading.character(named.end))
    for total in _TOTAL.finditer(body):
        says: Says = "liked" if total["says"].lower() == "liked" else "disliked"
        ends[Mention("history", "titles", says, (int(total["some"]), int(total["all"])))] = total.end()
    before = max(text.rfind(body), 0)
    return Check(
        verdict=verdict,
        conclusion=conclusion_of(text),
        claims=[names.claim(mention) for mention in ends],
        ends=[before + end for end in ends.values()],
    )


def _settled(named: _Named) -> Mention:
    """What is said of a name in the end; a count speaks for itself, of all titles that have the name."""
    mention = Mention(named.kind, named.name, named.says, named.count)
    return replace(mention, titles=tuple(named.titles)) if mention.taste and named.count is None else mention


def _phrases(by_meaning: Iterable[tuple[str, Iterable[str]]]) -> Names:
    names = Names(cased=True)  # all phrases are written in lower case
    for meaning, phrases in by_meaning:
        for phrase in phrases:
            names.add(phrase, meaning)
    return names


_SAME = "same"
_NO_NEGATION = ("not only", "not just", "no doubt", "no wonder")
_CUE_AT = _phrases([*cues.CUES.items(), (_SAME, cues.EXAMPLES), ("", _NO_NEGATION)])
_SUBJECT_AT = _phrases([("target", cues.TARGETS), ("other", cues.OTHERS)])
_SAYS: dict[str, Says] = {says: says for says in cues.CUES}


@dataclass(slots=True)
class _Named:
    kind: Literal["item", "keyword"]
    name: str
    says: Says
    claimed: bool  # an uncued keyword is a claim only if something after it makes it one
    end: int  # the token behind it
    count: tuple[int, int] | None = None
    titles: list[str] = field(default_factory=list)  # that it is said of


@dataclass(slots=True)
class _Clause:
    """What the words so far say of the next name."""

    says: Says | None = None
    listing: bool = False  # still in the list right behind the cue
    comma: bool = False  # since the cue
    negated: int = -cues.REACH - 1  # place of the last negation
    hedged: int = -cues.REACH - 1
    of_target: bool = False  # the target is its subject
    waiting: list[_Named] = field(default_factory=list)  # named, nothing said of them yet
    titles: list[str] = field(default_factory=list)  # named last, one after the other
    keywords: list[_Named] = field(default_factory=list)  # named since


class _Reading:
    """One pass over a text; `mentions` is what came of it."""

    def __init__(self, text: str, names: ShownNames, catalogue: Catalogue) -> None:
        self._text, self._names, self._catalogue = text, names, catalogue
        self._tokens = tokens_of(text)
        self._exact = [token.word.text for token in self._tokens]
        self._lower = [token.word.lower for token in self._tokens]
        self._folded = [token.word.folded for token in self._tokens]
        self._quotes = {quote.start(quote.lastindex or 0): quote for quote in _QUOTED.finditer(text)}
        self._clause = _Clause()
        self._topic: Says = "named"  # what the sentence before was about
        self._fresh = True  # at the beginning of a sentence
        self.mentions: list[_Named] = []
        place = 0
        while place < len(self._tokens):
            place = self._step(place)

    def character(self, place: int) -> int:
        """Where the token before `place` ends."""
        return self._tokens[place - 1].end

    def _step(self, place: int) -> int:
        """Read what stands at `place`; returns the place behind it."""
        token, fresh = self._tokens[place], self._fresh
        self._fresh = False
        if token.count is not None:
            self._counted(token, place)
            return place + 1
        if token.word.mark:
            self._mark(place)
            return place + 1
        behind_name = self._quote(place) or self._title(place, fresh)
        if behind_name:
            return behind_name
        if token.joined:
            return place + 1  # the rest of a compound
        cue, cue_length = _CUE_AT.at(self._lower, place)
        keyword, shown, length = self._keyword_at(place)
        # "love of" is a cue, but in a list behind another one "love" is an element.
        if length > cue_length or (length == cue_length > 0 and self._clause.listing):
            return self._keyword(keyword, shown, place, place + length)
        if cue_length:
            return self._cue(cue, place, place + cue_length)
        return self._other(place)

    # Names

    def _quote(self, place: int) -> int:
        """Read a quoted name at `place`; returns the place behind it, or 0."""
        quote = self._quotes.get(self._tokens[place].start)
        if quote is None:
            return 0
        inner = quote[quote.lastindex or 0]
        behind = place
        while behind < len(self._tokens) and self._tokens[behind].start < quote.end():
            behind += 1
        forms = (bare_words(inner, dated=True), bare_words(inner))
        titles = (quoted.get(form) for form in forms for quoted in (self._names.quoted, self._catalogue.quoted))
        title = next(filter(None, titles), None)
        keyword = self._names.keywords.get(inner) or self._catalogue.keywords.get(inner)
        if keyword is not None and not (title and inner[:1].isupper()):
            written = " ".join(inner.lower().split()).strip(".,;:!?")
            self._add("keyword", self._names.exact_keyword(written, keyword), behind, claimed=True)
        elif title is not None:
            self._item(title, place, behind)
        elif quote[0][0] != "*" and looks_like_a_name(inner):
            self._item(inner.strip(" .,;:"), place, behind)
        else:
            return 0
        return behind

    def _title(self, place: int, fresh: bool) -> int:
        """Read a title at `place`, the longest; returns the place behind it, or 0."""
        title, length = self._names.titles.at(self._exact, place)
        if length == 1 and (fresh or self._exact[place][0].islower()):
            length = 0  # one word that may be an ordinary one
        other_title, other_length = self._catalogue.titles.at(self._exact, place)
        if other_length > length:
            title, length = other_title, other_length
        if not length or self._cuts_compound(place, place + length):
            return 0
        self._item(title, place, place + length)
        return place + length

    def _keyword_at(self, place: int) -> tuple[str, bool, int]:
        """The longest keyword at `place`, whether it is a shown one, and its length."""
        name, length = self._names.keywords.at(self._folded, place)
        other_name, other_length = self._catalogue.keywords.at(self._folded, place)
        shown = length >= other_length
        if not shown:
            name, length = other_name, other_length
        if not length or self._cuts_compound(place, place + length):
            return "", False, 0
        if shown:
            name = self._names.exact_keyword(" ".join(self._lower[place : place + length]), name)
        return name, shown, length

    def _cuts_compound(self, start: int, end: int) -> bool:
        return self._tokens[start].joined or (end < len(self._tokens) and self._tokens[end].joined)

    def _item(self, title: str, start: int, end: int) -> None:
        is_target = self._names.is_target(title)
        taste = self._clause.says in ("liked", "disliked", "prefers", "avoids") and not is_target
        if not is_target:
            self._say_of_title(title, start)
        mention = self._add("item", title, end, claimed=True, says=None if taste else "named")
        if not taste:
            self._clause.of_target = is_target
            if not is_target:
                self._clause.waiting.append(mention)
            elif self._exact[end : end + 1] == [":"]:
                self._clause.says, self._clause.listing = "target", True

    def _say_of_title(self, title: str, start: int) -> None:
        """Keywords speak of the titles before them in their clause ("Night, a war film") or behind ("war in Night")."""
        clause = self._clause
        if clause.titles and not clause.keywords:  # one more of the titles named together
            clause.titles.append(title)
            return
        clause.titles = [title]
        if start and self._lower[start - 1] in cues.OF_TITLES:
            for keyword in clause.keywords:
                keyword.titles = clause.titles
        clause.keywords = []

    def _keyword(self, name: str, shown: bool, start: int, end: int) -> int:
        clause = self._clause
        if shown:
            # "a break from war films": of the target only a list right behind the cue is surely said.
            listed = clause.listing or clause.says not in ("target", "lacks")
            mention = self._add("keyword", name, end, claimed=clause.says is not None and listed)
            if clause.says is None:
                clause.waiting.append(mention)
        elif self._ends_element(end) and (clause.listing or self._has_count(end)):
            self._add("keyword", name, end, claimed=True)
        else:
            return self._other(start)
        return end

    def _ends_element(self, place: int) -> bool:
        """Whether a list's element may end before `place`: so it does before marks, links and "stories"."""
        if place >= len(self._tokens):
            return True
        word = self._tokens[place].word
        return word.mark or word.lower in cues.NOUNS or word.lower in ("and", "or", "nor", "but", "as")

    def _explains_title(self, place: int) -> bool:
        """Whether one word is all that stands behind a title and a colon: said of it, whoever knows the word."""
        behind_title = self._exact[place - 1] == ":" and self.mentions and self.mentions[-1].end == place - 1
        return bool(behind_title) and self.mentions[-1].kind == "item" and self._ends_element(place + 1)

    def _has_count(self, place: int) -> bool:
        return place < len(self._tokens) and self._tokens[place].count is not None

    def _add(
        self, kind: Literal["item", "keyword"], name: str, end: int, *, claimed: bool, says: Says | None = None
    ) -> _Named:
        mention = _Named(kind, name, says or self._clause.says or "named", claimed, end)
        self.mentions.append(mention)
        if kind == "keyword":
            mention.titles = self._clause.titles
            self._clause.keywords.append(mention)
        return mention

    # What is said of them

    def _counted(self, token: Token, place: int) -> None:
        last = self.mentions[-1] if self.mentions else None
        before = place
        while before and self._lower[before - 1] in cues.NOUNS:  # "sad films (0 of 1)"
            before -= 1
        if last is not None and last.end == before:
            last.count, last.claimed = token.counted(last.says), True
        elif place and self._clause.says is not None and not self._tokens[place - 1].word.mark:
            word = self._tokens[place - 1].word.lower
            if word not in cues.NOUNS and word not in cues.FILLERS:  # a name that nobody knows
                unknown = self._add("keyword", word, place + 1, claimed=True)
                unknown.count = token.counted(unknown.says)

    def _mark(self, place: int) -> None:
        token, clause = self._tokens[place], self._clause
        mark = token.word.text
        following = self._text[token.end : token.end + 1]
        if mark == "\n" or (mark in ".!?;\u2026" and not (following.isalnum() or following == ",")):
            if clause.says is not None:
                self._topic = clause.says
            self._clause, self._fresh = _Clause(), True
        elif mark in ",\u2013\u2014":
            clause.comma = True
            if not clause.listing:
                clause.says = None

    def _cue(self, cue: str, start: int, end: int) -> int:
        clause = self._clause
        if not cue:
            return end
        says: Says = self._topic if cue == _SAME else _SAYS[cue]
        if says == "prefers" and not {"did", "didn't"}.isdisjoint(self._lower[max(start - cues.REACH, 0) : start]):
            says = "liked"
        if start - clause.negated <= cues.REACH:
            says = cues.OPPOSITE[says]
        hedged = start - clause.hedged <= cues.REACH
        if cue in ("liked", "disliked") and self._follows_its_names(start, end):
            if hedged:  # "would be liked": a guess
                return end
            counted = self._has_count(end)
            for mention in self.mentions[-1:] if counted else clause.waiting:
                mention.says, mention.claimed = says, True
                if counted:
                    mention.count = self._tokens[end].counted(says)
            clause.waiting, clause.says, clause.listing = [], None, False
            return end + counted
        if hedged:
            says = "named"
        elif says in ("target", "lacks"):
            if clause.says not in (None, "target", "lacks"):
                return end  # "liked films about ...": it is the liking that goes on
            if not clause.of_target:
                # Of anybody else: such words are too common for what follows to be a claim.
                if says == "lacks" or self._lower[start] != "about":
                    clause.says = None
                    return end
                says = "named"
        clause.says, clause.listing, clause.comma = says, True, False
        clause.titles, clause.keywords = [], []
        clause.negated = clause.hedged = -cues.REACH - 1
        return end

    def _follows_its_names(self, start: int, end: int) -> bool:
        """Whether a cue speaks of what was named before it: "X, disliked (1 of 2)", "X (liked)", "X was liked"."""
        if end >= len(self._tokens):
            return True
        behind = self._tokens[end]
        if behind.count is not None or behind.word.text in (")", ",", ".", ";"):
            return True
        before = [word for word in self._lower[max(start - 3, 0) : start] if word not in ("also", "both", "all", "not")]
        return bool(before) and before[-1] in cues.PASSIVE

    def _other(self, place: int) -> int:
        """A word that names nothing: it may change what is said, or end it."""
        clause, word = self._clause, self._lower[place]
        subject, length = _SUBJECT_AT.at(self._lower, place)
        if length:
            clause.says, clause.listing = None, False
            clause.of_target = subject == "target"
            last = self._tokens[place + length - 1]
            if clause.of_target and (last.word.possessive or self._text[last.end : last.end + 1] == ":"):
                clause.says, clause.listing = "target", True
            return place + length
        if word in cues.BOUNDARIES or (word == "to" and self.mentions and self.mentions[-1].end == place):
            self._clause = _Clause(of_target=clause.of_target)
        elif word in cues.NEGATIONS or word.endswith("n't"):
            if clause.says in ("target", "lacks") and clause.listing:  # "has no war"
                clause.says = "lacks"
            elif word == "neither" and clause.says is not None and clause.listing:
                clause.says = cues.OPPOSITE[clause.says]
            elif word != "nor":
                clause.says, clause.listing = None, False
            if clause.says is None:
                clause.negated = place
        elif word in cues.HEDGES:
            clause.hedged = place
        elif word in ("like", "love") and place - max(clause.negated, clause.hedged) <= cues.REACH:
            return self._cue("prefers", place, place + 1)
        elif self._explains_title(place):
            self._add("keyword", word, place + 1, claimed=True)
        elif word not in cues.FILLERS and word not in cues.NOUNS:
            clause.listing = False
            if clause.comma:
                clause.says = None
        return place + 1
