"""The English around a name that makes a claim of it: cues, and the words that turn, limit or carry them on."""

from __future__ import annotations

from typing import Literal

Says = Literal["liked", "disliked", "prefers", "avoids", "target", "lacks", "named"]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# What stands before a name (or, for liked and disliked, after it) and what it says of it. "liked" and "disliked" are
# facts of the history, "prefers" and "avoids" the taste that is read out of it.
CUES: dict[Says, tuple[str, ...]] = {
    "liked": (
        "liked", "loved", "enjoyed", "appreciated", "praised", "favored", "favoured", "embraced",
        "shows a liking for", "shows a love of", "shows a love for", "responded well to", "rated highly", "likes of",
    ),
    "disliked": (
        "disliked", "hated", "rejected", "avoided", "dismissed", "shows a dislike of", "shows a dislike for",
        "responded poorly to", "rated poorly",
    ),
    "prefers": (
        "prefers", "prefer", "preferred", "preference for", "preferences", "preferences for", "enjoys", "enjoy",
        "enjoying", "enjoyment of", "likes", "liking", "liking for", "liking of", "loves", "love of", "love for",
        "appreciates", "appreciate", "appreciation for", "appreciation of", "favors", "favours", "values", "seeks out",
        "fan of", "fans of", "fond of", "fondness for", "taste for", "drawn to", "attracted to", "gravitates to",
        "gravitates toward", "gravitates towards", "leans toward", "leans towards", "lean toward", "lean towards",
        "interest in", "interested in", "affinity for", "affinity with", "appetite for", "penchant for",
        "weakness for", "enthusiasm for", "patience for", "care for", "cares for", "partial to",
        "responds well to", "responds to", "for it stands",
    ),
    "avoids": (
        "avoids", "avoid", "avoiding", "dislikes", "dislike", "disliking", "dislike of", "dislike for", "hates",
        "hate", "rejects", "aversion to", "averse to", "distaste for", "steers clear of", "turned off by",
        "put off by", "shies away from", "stays away from", "lack of interest in", "tired of", "tires of",
        "bored by", "lukewarm on", "responds poorly to", "against it stands",
    ),
    "target": (
        "about", "brings", "has", "features", "offers", "combines", "blends", "delivers", "explores", "contains",
        "includes", "mixes", "promises", "focuses on", "centers on", "centres on", "revolves around", "deals with",
        "marked by", "tagged", "tagged as", "tagged with", "described as", "keywords are", "is a", "is an",
    ),
    "lacks": ("lacks", "lacking", "lack of", "devoid of", "without", "misses", "free of"),
}  # fmt: skip
OPPOSITE: dict[Says, Says] = {
    "liked": "disliked", "disliked": "prefers", "prefers": "avoids", "avoids": "prefers", "target": "lacks",
    "lacks": "target", "named": "named",
}  # fmt: skip
# Examples carry on what the sentence before them was about.
EXAMPLES = (
    "one such title is", "one such item is", "one such film is", "one such movie is", "one such book is",
    "an example is", "one example is", "examples are", "examples include", "for example", "for instance",
)  # fmt: skip
TARGETS = (
    "target", "this one", "this film", "this movie", "this title", "this book", "this item", "this story",
    "this product", "this series", "this show", "this game", "this album", "this work",
)  # fmt: skip
OTHERS = ("user", "users", "they", "he", "she", "viewer", "reader", "person", "history", "user history", "i", "we")

NEGATIONS = _set("not never no neither nor cannot hardly rarely seldom barely scarcely little less few")
HEDGES = _set("would will might may can could should likely unlikely probably expected")
REACH = 4  # words over which a negation or a hedge reaches ahead to its cue
BOUNDARIES = _set(
    "but while whereas although though however yet despite unlike because since so when where if than whether over "
    "rather instead versus vs except besides"
)
# Words between the elements of a list, which end neither the list nor what it says.
FILLERS = _set(
    "a an the and or nor and/or both either neither also as well such like including include includes are is of "
    "about with in for any some all most many more other several various especially particularly mostly mainly "
    "generally often clearly strongly consistently repeatedly very quite really their his her its these those "
    "two three four titled called named one ones"
)
NOUNS = _set(
    "book books content element elements fare film films flick flicks genre genres item items keyword keywords "
    "material mood motif motifs movie movies narrative narratives pace pacing piece pieces plot plots product products "
    "series setting settings show shows stories story storyline storylines storytelling style stuff subject subjects "
    "tale tales theme themes title titles tone tones topic topics work works"
)
OF_TITLES = _set("in of from like as with")  # between keywords and the titles that they are said of
PASSIVE = _set("was were been being is are got gets")
