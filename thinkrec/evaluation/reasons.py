"""How good the written reasons are (METHOD §6): likeness to the teacher's held-out traces, honesty, and truth.

- Likeness: METEOR, ROUGE-L and BLEU against the teacher's text of the same row.
- Honesty: whether the verdict that a text states is that of the same row's score. Decoded greedily, a text that begins
  with a verdict begins with the score's, as both come from the same logits; sampled, with Yes as often as the
  probability says.
- Truth: whether what a text claims is so (`claims.checker`), ours beside the teacher's. Both are held to what the model
  surely saw: the target, and of the history what a question shows. Where a world knows the true reason of every rating,
  truth is also whether a text names it.

METEOR with synonyms is NaN ("not computed") without nltk's WordNet corpus, which this project does not ship.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.claims.answers import parse_verdict
from thinkrec.claims.checker import Checker
from thinkrec.claims.claims import UNTRUE, Check, Claim
from thinkrec.evaluation.intervals import interval, mean_draws
from thinkrec.metrics import says_yes
from thinkrec.synthetic.synonyms import MEANINGS, meaning

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
NO_SYNONYMS = SimpleNamespace(synsets=lambda word: [])  # in WordNet's place: METEOR then matches words and stems
AUTHORS = {"ours": "reason", "teacher": "teacher"}  # of texts, and their column of `artifacts.REASONS`


def words(text: str) -> list[str]:
    """The text's words, lower-case, without punctuation."""
    return _WORD.findall(text.lower())


def meteor_exact_stem(reason: str, teacher: str, wordnet: Any = NO_SYNONYMS) -> float:
    """METEOR in 0..1, by default with its exact and stem matchers only."""
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(words(teacher), words(reason), wordnet=wordnet))


def meteor_wordnet(reasons: Sequence[str], teachers: Sequence[str]) -> float:
    """Mean METEOR with all its matchers, in 0..1; NaN without texts, or where nltk's WordNet is not installed."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return float("nan")
    return _mean([meteor_exact_stem(*pair, wordnet) for pair in zip(reasons, teachers, strict=True)])


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
    verdicts = [parse_verdict(reason) for reason in reasons]
    pairs = [(reason, teacher) for reason, teacher in zip(reasons, teachers, strict=True) if teacher]
    with_teacher, of_teacher = ([pair[side] for pair in pairs] for side in (0, 1))

    def share_of(right: NDArray[np.bool_]) -> float:
        """How often the verdict is the right one; None, no verdict, never is."""
        return _mean([verdict == yes for verdict, yes in zip(verdicts, right.tolist(), strict=True)])

    return {
        "rows": len(reasons),
        "with_teacher": len(pairs),
        "meteor_exact_stem": _mean([meteor_exact_stem(*pair) for pair in pairs]),
        "meteor_wordnet": meteor_wordnet(with_teacher, of_teacher),
        "rouge_l": _mean([rouge_l(*pair) for pair in pairs]),
        "bleu": bleu(with_teacher, of_teacher),
        "verdict_share": _mean([verdict is not None for verdict in verdicts]),
        "agreement": share_of(says_yes(frame["probability"])),
        "accuracy": share_of(frame["label"].to_numpy() > 0),
        "non_empty_share": _mean([bool(words(reason)) for reason in reasons]),
        "words": _mean([len(words(reason)) for reason in reasons]),
        "distinct_share": len(set(reasons)) / len(reasons) if reasons else float("nan"),
    }


def _texts_of(frame: pd.DataFrame, author: str) -> list[tuple[int, str]]:
    """The rows for which this author wrote something, and what."""
    texts = zip(frame["row"].tolist(), frame[AUTHORS[author]].fillna(""), strict=True)
    return [(row, text) for row, text in texts if text.strip()]


def score_claims(frame: pd.DataFrame, checker: Checker) -> dict[str, dict[str, Any]]:
    """How much of what the texts of a table like `artifacts.REASONS` claim is so, by author.

    What is true is so `literally`, or `by_meaning` at least, which is to say by the thesaurus of `checker`. Of texts:
    `wholly_true_share` claim something, and nothing that is not so; `own_conclusion_share` of those with a conclusion
    ("It fits.") end with the verdict that they begin with. Of claims: `claims_true_share` are so; `target_true_share`
    of those that say something of the target, `history_true_share` of all others; and what is wrong with the others,
    a share for each of `claims.UNTRUE`.
    """
    return {
        author: _score_checks([checker.check(row, text) for row, text in _texts_of(frame, author)])
        for author in AUTHORS
    }


def _score_checks(checks: Sequence[Check]) -> dict[str, Any]:
    claims = [claim for check in checks for claim in check.claims]
    concluded = [check for check in checks if check.conclusion is not None]

    def share_of(checked: Sequence[Check | Claim]) -> dict[str, float]:
        literally, by_meaning = ([getattr(each, sense) for each in checked] for sense in ("true", "true_by_meaning"))
        return {"literally": _mean(literally), "by_meaning": _mean(by_meaning)}

    return {
        "reasons": len(checks),
        "claims": len(claims),
        "wholly_true_share": share_of(checks),
        "claims_true_share": share_of(claims),
        "target_true_share": share_of([claim for claim in claims if claim.of_target]),
        "history_true_share": share_of([claim for claim in claims if not claim.of_target]),
        **{f"{standing}_share": _mean([claim.standing == standing for claim in claims]) for standing in UNTRUE},
        "own_conclusion_share": _mean([check.conclusion == check.verdict for check in concluded]),
    }


def score_truth(
    frame: pd.DataFrame, true_reasons: Sequence[str], checker: Checker, user: NDArray[np.integer], *, seed: int
) -> dict[str, dict[str, Any]]:
    """Whether the texts of a table like `artifacts.REASONS` name the true reason, by author.

    `true_reasons` is the column `reason` of `artifacts.TRUTH`, one per interaction as `user` is; no figures where it is
    empty, which is where nobody knows. Rows whose true reason is no trait of the item are left out. A text names a
    trait's value by any of its words, wherever they stand.

    Of texts: `named_share`; `by_chance`, what a text would have that names as many of the target's keywords (words of
    one value being one) drawn at random; `by_chance_of_traits`, the same of its keywords that are words of a trait, as
    every true reason is; `lead`, what is named above the latter, with its interval over users.
    `shown_share` is how often the target's keywords hold the true reason at all.
    """
    if not len(true_reasons):
        return {}
    scores = {}
    for author in AUTHORS:
        texts = [(row, text) for row, text in _texts_of(frame, author) if ":" in true_reasons[row]]
        shares = [
            _name_reason(text, true_reasons[row].partition(":")[2], checker.shown(row).target.keywords)
            for row, text in texts
        ]
        lead = np.asarray([share["named_share"] - share["by_chance_of_traits"] for share in shares], np.float64)
        edges = interval(mean_draws(user[[row for row, _ in texts]], lead, seed=seed))
        scores[author] = {
            "reasons": len(texts),
            **{
                name: _mean([share[name] for share in shares])
                for name in ("named_share", "by_chance", "by_chance_of_traits", "shown_share")
            },
            "lead": {"value": _mean(lead.tolist()), **edges},
        }
    return scores


def _name_reason(text: str, value: str, keywords: Sequence[str]) -> dict[str, float]:
    """The four shares of `score_truth`, of one text."""
    named_meanings = set(map(meaning, words(text)))
    inside = {meaning(word.lower()) for word in keywords}

    def by_chance(meanings: set[str]) -> float:
        return len(named_meanings & meanings) / len(meanings) if value in meanings else 0.0

    return {
        "named_share": float(value in named_meanings),
        "by_chance": by_chance(inside),
        "by_chance_of_traits": by_chance(inside & set(MEANINGS.values())),
        "shown_share": float(value in inside),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
