"""How good the written reasons are (METHOD §6): likeness to the held-out teacher's traces, honesty, and truth.

Likeness is METEOR, ROUGE-L and BLEU against the teacher's text of the same row. Honesty is whether the verdict a text
states is the verdict that the same row's score stands for. One model gives both from the same logits: decoded greedily,
a text that begins with a verdict begins with the score's; sampled, with Yes as often as the probability says.
Truth is whether what a text claims of titles and keywords is so (`claims.checker`), ours beside the teacher's. Both
are held to the same: the target, and of the history what a question shows, which is what the model surely saw. Where a
world knows the true reason of every rating, truth is also whether a text names that.

What needs data that this project does not ship is NaN ("not computed") without it: METEOR with synonyms needs nltk's
WordNet corpus, BERTScore and BLEURT need models (`evaluation.learned`). Whether scores rest on what reasons cite is
another question: `evaluation.faithfulness`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.claims.answers import parse_verdict
from thinkrec.claims.checker import Checker
from thinkrec.claims.claims import Check
from thinkrec.evaluation.intervals import mean_interval
from thinkrec.metrics import says_yes
from thinkrec.synthetic.synonyms import MEANINGS, meaning

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


class NoWordNet:
    """Stands in for WordNet: no word has a synonym, so METEOR matches words and stems."""

    def synsets(self, word: str) -> list[Any]:
        return []


def words(text: str) -> list[str]:
    """The text's words, lower-case, without punctuation."""
    return _WORD.findall(text.lower())


def meteor_exact_stem(reason: str, teacher: str) -> float:
    """METEOR with its exact and stem matchers only, in 0..1."""
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(words(teacher), words(reason), wordnet=NoWordNet()))


def meteor_wordnet(reasons: Sequence[str], teachers: Sequence[str]) -> float:
    """Mean METEOR with all its matchers, in 0..1; NaN without texts, or where nltk's WordNet is not installed."""
    from nltk.corpus import wordnet
    from nltk.translate.meteor_score import single_meteor_score

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return float("nan")
    pairs = zip(reasons, teachers, strict=True)
    return _mean([single_meteor_score(words(teacher), words(reason), wordnet=wordnet) for reason, teacher in pairs])


def rouge_l(reason: str, teacher: str) -> float:
    """ROUGE-L: the F1 of the longest common subsequence of stemmed words, in 0..1."""
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"], use_stemmer=True).score(teacher, reason)["rougeL"].fmeasure)


def bleu(reasons: Sequence[str], teachers: Sequence[str]) -> float:
    """Corpus BLEU-4, in 0..1; NaN without texts."""
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    if not reasons:
        return float("nan")
    # Without smoothing nltk warns, and gives about 0, where short texts share no run of four words.
    smoothing = SmoothingFunction().method1
    references = [[words(teacher)] for teacher in teachers]
    return float(corpus_bleu(references, [words(reason) for reason in reasons], smoothing_function=smoothing))


def score_reasons(frame: pd.DataFrame) -> dict[str, float | int]:
    """All reason metrics of a table like `artifacts.REASONS`.

    Rows without a teacher's text count for agreement and for the texts' own figures, not for likeness. A text without
    a readable verdict disagrees with its score; `verdict_share` says how many have one.
    """
    reasons = [text.strip() for text in frame["reason"].fillna("")]
    teachers = [text.strip() for text in frame["teacher"].fillna("")]
    yes = says_yes(frame["probability"])
    label = frame["label"].to_numpy() > 0
    verdicts = [parse_verdict(reason) for reason in reasons]
    # `None == True` is False, which is the rule above.
    pairs = [(reason, teacher) for reason, teacher in zip(reasons, teachers, strict=True) if teacher]
    return {
        "rows": len(reasons),
        "with_teacher": len(pairs),
        "meteor_exact_stem": _mean([meteor_exact_stem(*pair) for pair in pairs]),
        "meteor_wordnet": meteor_wordnet([reason for reason, _ in pairs], [teacher for _, teacher in pairs]),
        "rouge_l": _mean([rouge_l(*pair) for pair in pairs]),
        "bleu": bleu([reason for reason, _ in pairs], [teacher for _, teacher in pairs]),
        "verdict_share": _mean([verdict is not None for verdict in verdicts]),
        "agreement": _mean([verdict == said for verdict, said in zip(verdicts, yes.tolist(), strict=True)]),
        "accuracy": _mean([verdict == truth for verdict, truth in zip(verdicts, label.tolist(), strict=True)]),
        "non_empty_share": _mean([bool(words(reason)) for reason in reasons]),
        "words": _mean([len(words(reason)) for reason in reasons]),
        "distinct_share": len(set(reasons)) / len(reasons) if reasons else float("nan"),
    }


def score_claims(frame: pd.DataFrame, checker: Checker) -> dict[str, dict[str, float | int]]:
    """How much of what the texts of a table like `artifacts.REASONS` claim is so: `ours`, and the `teacher`'s.

    Of claims, not of texts:
    `grounded_share` are about what was shown, `consistent_share` of those are as it was shown; `of_target_share` of
    those that say something of the target are so, `of_history_share` of all others. Of texts: `true_reasons_share`
    claim something, and nothing that is not so; `own_conclusion_share` of those with a conclusion ("It fits.") end with
    the verdict that they begin with.
    """
    scores = {}
    for name, column in {"ours": "reason", "teacher": "teacher"}.items():
        texts = zip(frame["row"].tolist(), frame[column].fillna(""), strict=True)
        scores[name] = _claimed([checker.check(row, text) for row, text in texts if text.strip()])
    return scores


def _claimed(checks: Sequence[Check]) -> dict[str, float | int]:
    claims = [claim for found in checks for claim in found.claims]
    return {
        "reasons": len(checks),
        "claims": len(claims),
        "grounded_share": _mean([claim.shown for claim in claims]),
        "consistent_share": _mean([not claim.contradicted for claim in claims if claim.shown]),
        "of_target_share": _mean([claim.true for claim in claims if claim.of_target]),
        "of_history_share": _mean([claim.true for claim in claims if not claim.of_target]),
        "true_reasons_share": _mean([found.true for found in checks]),
        "own_conclusion_share": _mean(
            [found.conclusion == found.verdict for found in checks if found.conclusion is not None]
        ),
    }


def score_truth(
    frame: pd.DataFrame,
    true_reasons: Sequence[str],
    checker: Checker,
    user: NDArray[np.integer],
    *,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Whether the texts of a table like `artifacts.REASONS` name the true reason: `ours`, and the `teacher`'s.

    `true_reasons` is the column `reason` of `artifacts.TRUTH`, one per interaction as `user` is; no figures where it is
    empty, which is where nobody knows. Rows whose true reason is no trait of the item are left out. A text names a
    trait's value by any of its words (`data.words`), wherever they stand.

    Of texts: `named_share`; `by_chance`, what a text would have that names as many of the target's keywords (words of
    one value being one) drawn at random; `by_chance_of_traits`, the same of its keywords that are words of a trait, as
    every true reason is; `lead`, what is named above the latter, with its interval over users.
    `shown_share` is how often the target's keywords hold the true reason at all.
    """
    if not len(true_reasons):
        return {}
    scores = {}
    for name, column in {"ours": "reason", "teacher": "teacher"}.items():
        texts = zip(frame["row"].tolist(), frame[column].fillna(""), strict=True)
        said = [(row, text) for row, text in texts if text.strip() and ":" in true_reasons[row]]
        found = [
            _named(text, true_reasons[row].partition(":")[2], checker.shown(row).target.keywords) for row, text in said
        ]
        measures = ("named_share", "by_chance", "by_chance_of_traits", "shown_share")
        above = np.asarray([named - chance for named, _, chance, _ in found], np.float64)
        low, high = mean_interval(user[[row for row, _ in said]], above, seed=seed)
        scores[name] = {
            "reasons": len(found),
            **{measure: _mean([one[at] for one in found]) for at, measure in enumerate(measures)},
            "lead": {"value": _mean(above.tolist()), "low": low, "high": high},
        }
    return scores


def _named(text: str, value: str, keywords: Sequence[str]) -> tuple[float, float, float, float]:
    """The four shares of `score_truth`, of one text."""
    named_meanings = set(map(meaning, words(text)))
    inside = {meaning(word.lower()) for word in keywords}
    traits = inside & set(MEANINGS.values())
    chances = [len(named_meanings & held) / len(held) if value in held else 0.0 for held in (inside, traits)]
    return float(value in named_meanings), chances[0], chances[1], float(value in inside)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
