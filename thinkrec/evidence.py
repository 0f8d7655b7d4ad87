"""What a reason names, and whether it is there: titles and keywords, looked up in what the model was shown.

A reason may name what the model was never shown. That is found too, as far as the catalogue knows the name. Titles are
matched as whole words in their own case, keywords as whole words in any. Titles of one word are looked for only among
those shown: elsewhere they could be any word ("It").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from thinkrec.synthesis.verdict import split_verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An item as the model saw it; `liked` is None for the target."""

    title: str
    keywords: Sequence[str]
    liked: bool | None = None


def evidence_of(
    reason: str, history: Sequence[Seen], target: Seen, *, titles: Iterable[str], keywords: Iterable[str]
) -> pd.DataFrame:
    """Every title and keyword that `reason` names, titles first, each kind in the order of its first mention.

    Columns: `kind` (item or keyword), `name`, `target` (it is the target, or is one of the target's keywords), `liked`
    and `disliked` (how many items of the history it is, or belongs to) and `found` (any of these). `titles` and
    `keywords` are those of the whole catalogue.
    """
    parts = split_verdict(reason)
    text = reason if parts is None else parts[1]
    shown = {seen.title for seen in (*history, target)}
    named = _named(text, shown | {title for title in titles if len(title.split()) > 1})
    for title in named:
        text = text.replace(title, " | ")  # a word of a title is no keyword
    lower = {word.lower() for word in keywords} | {
        word.lower() for seen in (*history, target) for word in seen.keywords
    }
    rows = [
        *(("item", title, title == target.title, [seen for seen in history if seen.title == title]) for title in named),
        *(
            ("keyword", word, _has(target, word), [seen for seen in history if _has(seen, word)])
            for word in _named(text.lower(), lower)
        ),
    ]
    frame = pd.DataFrame(
        [
            (
                kind,
                name,
                of_target,
                sum(seen.liked is True for seen in those),
                sum(seen.liked is False for seen in those),
            )
            for kind, name, of_target, those in rows
        ],
        columns=["kind", "name", "target", "liked", "disliked"],
    ).astype({"target": bool, "liked": int, "disliked": int})
    return frame.assign(found=frame["target"] | (frame["liked"] + frame["disliked"] > 0))


def _has(seen: Seen, keyword: str) -> bool:
    return keyword in (word.lower() for word in seen.keywords)


def _named(text: str, names: Iterable[str]) -> list[str]:
    """Which names stand in the text as whole words, by first mention; where two overlap, the longer one."""
    longest_first = sorted((name for name in names if name), key=lambda name: (-len(name), name))
    if not longest_first:
        return []
    found = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", text)
    return list(dict.fromkeys(found))
