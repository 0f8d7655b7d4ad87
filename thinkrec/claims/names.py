"""Names in text: words and marks, what stands at a place, what reads like a name that nobody knows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from thinkrec.claims.cues import Says

_NO_NAMES = frozenset(("yes", "no", "liked", "disliked", "history", "target", "verdict"))  # quoted, they cite the form
_SMALL_WORDS = "a an and as at by de der des di du for from in la le of on or the to und vs with"
_SMALL = frozenset(_SMALL_WORDS.split())
_LONGEST_NAME = 12  # words of something quoted that could be a title

_TOKEN = re.compile(
    r"(?P<count>\(\s*(?P<some>\d{1,4})\s*(?:/|(?:out\s+)?of)\s*(?:the\s+)?(?P<all>\d{1,4})(?:\s(?P<label>[^()]{0,30}))?\))"
    r"|(?P<word>[^\W_]+(?:['\u2019][^\W_]+)*)"
    r"|(?P<mark>\n|[^\w\s\"'\u201c\u201d\u2018\u2019\u00ab\u00bb*_`-])"
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word, a mark or a count, in the forms that names are compared in."""

    text: str  # without a possessive ending
    lower: str
    folded: str  # without the plural's ending
    possessive: bool
    mark: bool


@dataclass(frozen=True, slots=True)
class Token:
    """A word, mark or count where it stands in a text; `start` and `end` are places of characters."""

    word: Word
    start: int
    end: int
    joined: bool  # by a hyphen to the token before
    count: tuple[int, int] | None
    label: str  # within the count: "(0 of 3 liked)"

    def counted(self, says: Says) -> tuple[int, int] | None:
        """The count as one of those that were `says`: of the others, if its own label says so."""
        if self.count is None:
            return None
        some, of_all = self.count
        other = "liked" if says in ("disliked", "avoids") else "disliked"
        return (of_all - some, of_all) if re.search(rf"\b{other}\b", self.label) else self.count


@lru_cache(maxsize=1 << 17)
def _word(text: str) -> Word:
    possessive = text.endswith(("'s", "\u2019s"))
    bare = text[:-2] if possessive else text
    lower = bare.lower().replace("\u2019", "'")
    return Word(bare, lower, _singular(lower), possessive, not text[0].isalnum())


def _singular(word: str) -> str:
    """`word` in a form that its singular and plural share; not always a word."""
    if len(word) > 4 and re.search("(?:ss|sh|ch|x)es$", word):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return f"{word[:-2]}y" if len(word) > 3 and word.endswith("ie") else word


def tokens_of(text: str) -> list[Token]:
    """The words, counts and marks of a text, in its order."""
    tokens: list[Token] = []
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        joined = bool(tokens) and tokens[-1].end == start - 1 and text[start - 1] == "-"
        count = (int(match["some"]), int(match["all"])) if match["count"] else None
        tokens.append(Token(_word(match[0]), start, end, joined, count, match["label"] or ""))
    return tokens


@lru_cache(maxsize=1 << 17)
def words_of(name: str, cased: bool = True) -> tuple[str, ...]:
    """A name as it is looked up in running text: words and the marks between them."""
    words = [token.word for token in tokens_of(unicodedata.normalize("NFC", name))]
    while words and words[-1].mark:
        words.pop()
    while words and words[0].mark:
        words.pop(0)
    return tuple(word.text if cased else word.folded for word in words)


@lru_cache(maxsize=1 << 17)
def bare_words(name: str, *, dated: bool = False) -> tuple[str, ...]:
    """A name as it is looked up in quotes: words in lower case, without marks and, unless `dated`, a last year."""
    words = [token.word.lower for token in tokens_of(unicodedata.normalize("NFC", name)) if not token.word.mark]
    if not dated and len(words) > 1 and re.fullmatch(r"(?:19|20)\d\d", words[-1]):
        words.pop()
    return tuple(words)


class Names:
    """Names by their words; the longest that stands at a place is found in one look-up per length."""

    __slots__ = ("_cased", "_lengths", "_names")

    def __init__(self, *, cased: bool) -> None:
        self._cased = cased
        self._names: dict[tuple[str, ...], str] = {}
        self._lengths: dict[str, list[int]] = {}

    def add(self, name: str, meant: str) -> None:
        """`name` stands for `meant`; the first of several keeps the name."""
        words = words_of(name, self._cased)
        if words and words not in self._names:
            self._names[words] = meant
            lengths = {len(words), *self._lengths.get(words[0], ())}
            self._lengths[words[0]] = sorted(lengths, reverse=True)

    def at(self, words: Sequence[str], place: int) -> tuple[str, int]:
        """What the longest name that begins at `place` stands for, and its length; length 0 without any."""
        for length in self._lengths.get(words[place], ()):
            name = tuple(words[place : place + length])  # at the end of `words` it may be shorter
            meant = self._names.get(name)
            if meant is not None and len(name) == length:
                return meant, length
        return "", 0

    def get(self, name: str) -> str | None:
        """What `name` stands for."""
        return self._names.get(words_of(name, self._cased))


def looks_like_a_name(quoted: str) -> bool:
    """Whether quoted text that nobody knows is a title in form: a few words with capitals, not a sentence."""
    words = [token.word.text for token in tokens_of(quoted) if not token.word.mark]
    if not 0 < len(words) <= _LONGEST_NAME or " ".join(words).lower() in _NO_NAMES or not words[0][0].isupper():
        return False
    return all(not word[0].islower() or word in _SMALL for word in words)


class Catalogue:
    """The titles and keywords of all items, indexed by their first words: made once, looked up for every text."""

    def __init__(self, titles: Iterable[str], keywords: Iterable[str]) -> None:
        self.titles = Names(cased=True)
        self.quoted: dict[tuple[str, ...], str] = {}
        for title in titles:
            for dated in (True, False):
                self.quoted.setdefault(bare_words(title, dated=dated), title)
            # A title with one capital, or of one word, could be the beginning of any sentence.
            if sum(not word[0].islower() for word in words_of(title) if word[0].isalnum()) > 1:
                self.titles.add(title, title)
        self.keywords = Names(cased=False)
        for keyword in sorted(set(keywords)):  # of words that differ in number the first lends its name to all
            self.keywords.add(keyword, keyword.lower())
