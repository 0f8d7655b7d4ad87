"""What was measured of the reasons, in words: every figure with its name and a line that says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinkrec.artifacts import leaves
from thinkrec.report.accuracy import figure_text

Words = dict[str, tuple[str, str]]

TEXTS: Words = {
    "rows": ("reasons", "written, each about one test interaction"),
    "with_teacher": ("of them with a teacher’s text", "likeness is measured on these"),
    "meteor_exact_stem": ("METEOR", "likeness to the teacher’s text: words and stems in common, and their order"),
    "meteor_wordnet": ("METEOR with synonyms", "the same, synonyms counted; – where nltk’s WordNet is not installed"),
    "rouge_l": ("ROUGE-L", "the longest sequence of words in common with the teacher’s text"),
    "bleu": ("BLEU-4", "runs of up to four words in common with the teacher’s text"),
    "bertscore": ("BERTScore", "likeness by a language model’s states; – where no model was given for it"),
    "bleurt": ("BLEURT", "likeness as a trained model rates it; – where no model was given for it"),
    "verdict_share": ("with a verdict", "begin with a Yes or No that can be read"),
    "agreement": ("verdict of the score", "begin with the verdict that the row’s score means"),
    "accuracy": ("right verdict", "begin with what the user then did"),
    "non_empty_share": ("not empty", "have any words"),
    "words": ("words", "of a reason, on average"),
    "distinct_share": ("distinct", "different texts, among all reasons"),
}
SHARES = (
    ("wholly_true_share", "wholly true texts", "claim something, and every claim is so"),
    ("claims_true_share", "true claims", "of all claims"),
    ("target_true_share", "true of the target", "of the claims about the rated item"),
    ("history_true_share", "true of the history", "of the claims about what the user did before"),
)
CLAIMS: Words = {
    "reasons": ("texts", "that were checked"),
    "claims": ("claims", "checkable statements in them, such as “liked survival (1 of 2)”"),
    **{
        f"{share}.{sense}": (f"{name}{words}", meaning)
        for share, name, meaning in SHARES
        for sense, words in (("literally", ", literally"), ("by_meaning", ", by meaning: a synonym counts, too"))
    },
    "synonym_share": ("synonyms", "claims that are true by meaning alone"),
    "ungrounded_share": ("never shown", "claims about something that the prompt did not show"),
    "no_taste_share": ("no taste", "claims to like or dislike a place, a name or a year"),
    "unsupported_share": (
        "too little support",
        "claims to like or dislike what fewer than two titles, or most otherwise, show",
    ),
    "untrue_share": ("untrue", "claims against what the prompt showed"),
    "own_conclusion_share": ("true to themselves", "texts that end with the verdict that they begin with"),
}
TRUTH: Words = {
    "reasons": ("texts", "about interactions whose true reason is a trait of the item"),
    "named_share": ("name the true reason", "of the texts"),
    "by_chance": ("by chance, any keyword", "what as many of the item’s keywords, drawn at random, would name"),
    "by_chance_of_traits": ("by chance, words of traits", "the same, drawn only from words of a trait"),
    "shown_share": ("could be named", "of the items, those whose keywords hold the true reason"),
    "lead.value": ("above chance", "named, minus by chance (words of traits)"),
    "lead.low": ("above chance, from", "lower end of the 95 % interval, over users"),
    "lead.high": ("above chance, to", "upper end of it"),
}
INTERVENTIONS: Words = {
    "pairs": ("pairs", "what a reason cites of history or keywords, and as much that it does not cite"),
    "changed": ("changes", "on either side of a pair, on average"),
    "cited": ("score moves, cited", "how far the logit moves when what is cited is changed"),
    "control": ("score moves, not cited", "how far it moves when the same is done to what is not cited"),
    "difference": ("difference", "cited minus not cited; above 0, the score rests on what the reason cites"),
    "low": ("difference, from", "lower end of the 95 % interval, over users"),
    "high": ("difference, to", "upper end of it"),
    "cited_more_share": ("cited moves more", "of the pairs"),
}
AUTHORS = {"ours": "ThinkRec", "teacher": "teacher"}
CHANGES = {"flip": "likes and dislikes swapped", "drop": "titles dropped", "mask": "keywords hidden"}
# Group of measures -> its title, what its columns are, and the words of its rows.
GROUPS: dict[str, tuple[str, dict[str, str], Words]] = {
    "claims": ("Are the reasons true?", AUTHORS, CLAIMS),
    "truth": ("Do they name the true reason?", AUTHORS, TRUTH),
    "interventions": ("Does the score rest on what they cite?", CHANGES, INTERVENTIONS),
    "reason_first": ("Does it help to reason before the verdict?", {}, {}),
}


def reason_measures(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The measures of the reasons (`evaluate`'s measures) as tables, each figure explained.

    A table has its `title`, the `heads` of its columns, and `rows` of a name, what it means, and the figures.
    """
    nested = {name: value for name, value in measured.items() if isinstance(value, dict)}
    numbers = {name: value for name, value in measured.items() if not isinstance(value, dict | str)}
    tables = [_measures("What the texts are like", {"": ""}, TEXTS, {"": numbers})]
    for name, group in nested.items():
        title, columns, words = GROUPS.get(name, (name.replace("_", " "), {}, {}))
        parts = group if group and all(isinstance(part, dict) for part in group.values()) else {"": group}
        if group:
            tables.append(_measures(title, columns, words, parts))
    return tables


def _measures(
    title: str, columns: Mapping[str, str], words: Words, parts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    values = {column: dict(leaves(part)) for column, part in parts.items()}
    there = {name for column in values.values() for name in column}
    names = [*(name for name in words if name in there), *(name for column in values.values() for name in column)]
    return {
        "title": title,
        "heads": [columns.get(column, column.replace("_", " ")) or "value" for column in values],
        "rows": [
            (
                *words.get(name, (name.replace("_", " ").replace(".", ", "), "")),
                [_figure(column.get(name)) for column in values.values()],
            )
            for name in dict.fromkeys(names)
        ],
    }


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return figure_text(value, ".4f" if abs(value) < 10 else ".1f")
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
