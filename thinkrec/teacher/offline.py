"""The offline teacher: answers in this process as an OpenAI-compatible server would, from the prompt alone.

It reads the history and the target out of the request's text and knows nothing else: no labels, no true reasons.
Each keyword of the target is weighed by how much more often than usual the user liked what has it,

    weight(k) = trust(k) · (logit((liked_k + s·p) / (seen_k + s)) - logit(p)),    p = (liked + 1) / (seen + 2),

where liked_k and seen_k count the history's titles with k or a synonym. The verdict is the sign of logit(p) + sum of
weights. It knows the synonyms and the places of the synthetic world's vocabulary, as a language model knows English. It
trusts other words (genres, names) half as much, and takes no place and no year for a taste. What it says of the history
it says in the history's own words and of titles by name, and of the target in the target's: literally true (`claims`).

Like any teacher it errs: some verdicts are turned round, some corrections are ignored and some repeated aloud. Some
answers about items are a sentence, which cannot be used. All that varies is drawn from hashes of the request, so equal
requests get equal answers.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from thinkrec.claims.answers import WORDS, Parts, parse_verdict, write_answer
from thinkrec.claims.claims import is_no_taste
from thinkrec.claims.cleaning import MOST_KEYWORDS, clean_keywords, content_words
from thinkrec.synthetic.synonyms import MEANINGS, meaning
from thinkrec.synthetic.vocabulary import PLACES
from thinkrec.teacher.item_prompts import read_item
from thinkrec.teacher.trace_prompts import HISTORY, LIKED, TARGET

SMOOTHING = 1.0
TRUST = {True: 1.0, False: 0.5}  # in words whose synonyms it knows, and in others
FLIPPED = 0.05  # share of first verdicts turned round
STUBBORN = 0.15  # share of corrections ignored
LEAKED = 0.08  # share of corrections repeated in the answer
PROSE = 0.03  # share of answers about items that are a sentence
LONGEST_TITLE = 40  # characters of a title worth repeating
TITLES = 2  # named for one word

_PLACES = frozenset(place.lower() for place in PLACES)
_BLOCK = re.compile(rf"^<({HISTORY}|{TARGET})>\n(.*?)^</\1>$", re.MULTILINE | re.DOTALL)
_CORRECTION = re.compile(r"\bright\b[^.;]*?\b(Yes|No)\b")

# Per verdict, what a sentence may sound like.
_EVIDENCE = ("The user {}.", "They {}.", "Before, they {}.")
_COUNTER = {True: "Against it, they {}.", False: "For it, they {}."}
_CONTRAST = "Elsewhere, they {}."
_TARGET = ("This is {}.", "This one is {}.", "The target is {}.")
_NO_CONTRAST = "Nothing else stands out."
_CLOSING = {True: ("It fits.", "It still fits."), False: ("It does not fit.", "It still does not fit.")}
_NOTHING = {True: "Nothing in the history speaks against it;", False: "Nothing in the history speaks for it;"}
_OUTWEIGHED = {True: "Little in the history speaks for it, but", False: "Little in the history speaks against it, but"}
_LISTS: tuple[Callable[[list[str]], str], ...] = (
    ", ".join,
    lambda keywords: f"Keywords: {', '.join(keywords)}",
    lambda keywords: "\n".join(f"{number}. {word}" for number, word in enumerate(keywords, 1)),
    json.dumps,
)
_LEAKS = ("You are right, the correct answer is {word}. {rest}", "As you pointed out, {word} is right. {rest}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a history says of one keyword: how many liked and disliked titles have it or a synonym, and its weight."""

    keyword: str
    liked: int
    disliked: int
    weight: float

    def of(self, verdict: bool) -> int:
        """The number of its titles that were liked (or disliked)."""
        return self.liked if verdict else self.disliked


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question as read from a prompt: a history of (title, keywords, liked), oldest first, and the target."""

    history: Sequence[tuple[str, Sequence[str], bool]]
    title: str
    target: Sequence[str]

    def seen(self, verdict: bool) -> int:
        """How many titles of the history were liked (or disliked)."""
        return sum(liked == verdict for _, _, liked in self.history)

    @property
    def usual(self) -> float:
        """p: how often the user likes a title, whatever it has."""
        return (self.seen(True) + 1) / (len(self.history) + 2)


async def respond(request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """The status and the body of a response to a chat completion request: of `complete`, or what it cannot read."""
    try:
        return 200, complete(request)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return 400, _error(f"not a question this teacher can read: {error}")


def complete(request: Mapping[str, Any]) -> dict[str, Any]:
    """The response to a chat completion request: a function of the request and nothing else."""
    messages = request["messages"]
    text = answer(messages)
    asked, answered = sum(len(message["content"].split()) for message in messages), len(text.split())
    return {
        "id": f"chatcmpl-{_digest(messages).hex()[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered},
    }


def answer(messages: Sequence[Mapping[str, str]]) -> str:
    """The teacher's next message: its own verdict at first, then an argument for the verdict it was told is right.

    Raises:
        ValueError: the first user message holds no readable question.
    """
    spoken = [message["content"] for message in messages if message["role"] == "user"]
    if not spoken:
        raise ValueError("no user message")
    if (item := read_item(spoken[0])) is not None:
        return keywords_answer(item, _digest(messages))
    case = read_case(spoken[0])
    corrections = [match[1] == WORDS[True] for text in spoken[1:] if (match := _CORRECTION.search(text))]
    verdict, style = judge(case), _digest(messages)
    draw = _uniform(style)
    if not corrections or draw < STUBBORN:
        before = [message["content"] for message in messages if message["role"] == "assistant"]
        last = parse_verdict(before[-1]) if corrections and before else None
        verdict = verdict if last is None else last
        return write_answer(verdict, explain(case, verdict, style))
    parts = explain(case, corrections[-1], style)
    if draw < STUBBORN + LEAKED:
        parts["history"] = _pick(_LEAKS, style[9]).format(word=WORDS[corrections[-1]], rest=parts["history"])
    return write_answer(corrections[-1], parts)


def keywords_answer(item: Mapping[str, Any], style: bytes) -> str:
    """The answer to the question about `item`; the 32 bytes of `style` draw its form."""
    described = content_words(item.get("description", ""))
    understood = [word for word in described if word in MEANINGS]
    proposed = [*item.get("categories", []), *(understood or (word for word, _ in Counter(described).most_common()))]
    keywords = clean_keywords(proposed or content_words(item.get("title", "")), MOST_KEYWORDS)
    if _uniform(style) < PROSE:
        return f"This is an item that people know for its {' and '.join(keywords) or 'title'}."
    return _LISTS[style[0] % len(_LISTS)](keywords)


def read_case(text: str) -> Case:
    """The history and the target of a prompt.

    Raises:
        ValueError: a block is missing or is not JSON lines of the expected keys.
    """
    blocks = {block[1]: [json.loads(line) for line in block[2].splitlines()] for block in _BLOCK.finditer(text)}
    if set(blocks) != {HISTORY, TARGET} or len(blocks[TARGET]) != 1:
        raise ValueError(f"it should hold one <{HISTORY}> and one <{TARGET}> block")
    liked = {name: verdict for verdict, name in LIKED.items()}
    target = list(filter(is_taste, blocks[TARGET][0]["keywords"]))
    return Case(
        history=[(line["title"], line["keywords"], liked[line["verdict"]]) for line in blocks[HISTORY]],
        title=blocks[TARGET][0]["title"],
        # Two words of one meaning are one piece of evidence, under the first word's name.
        target=[word for place, word in enumerate(target) if meaning(word) not in map(meaning, target[:place])],
    )


def weigh(case: Case, keywords: Sequence[str]) -> list[Evidence]:
    """The evidence on each of `keywords`, in their order."""
    usual = case.usual
    history = [(set(map(meaning, named)), liked) for _, named, liked in case.history]
    evidence = []
    for keyword in keywords:
        verdicts = [liked for meanings, liked in history if meaning(keyword) in meanings]
        liked, seen = sum(verdicts), len(verdicts)
        weight = TRUST[keyword in MEANINGS] * (_logit((liked + SMOOTHING * usual) / (seen + SMOOTHING)) - _logit(usual))
        evidence.append(Evidence(keyword=keyword, liked=liked, disliked=seen - liked, weight=weight))
    return evidence


def judge(case: Case) -> bool:
    """The teacher's own verdict.

    The noise is drawn from the evidence, not from the text: words that are no evidence cannot change a verdict.
    """
    evidence = [piece for piece in weigh(case, case.target) if piece.liked or piece.disliked]
    verdict = _logit(case.usual) + sum(piece.weight for piece in evidence) >= 0
    drawn_from = [
        [liked for _, _, liked in case.history],
        sorted((piece.keyword, piece.liked, piece.disliked) for piece in evidence),
    ]
    return verdict != (_uniform(_digest(drawn_from)) < FLIPPED)


def explain(case: Case, verdict: bool, style: bytes) -> Parts:
    """A short argument for `verdict` that claims nothing the prompt does not show; `style` varies the wording."""
    if not case.history:
        fit = _join(_about(case, case.target[:2], style), "Nothing speaks for or against it.")
        return {"history": "The history is empty.", "taste": "No taste is known.", "fit": fit}
    sign = 1 if verdict else -1
    evidence = sorted(weigh(case, case.target), key=lambda piece: -sign * piece.weight)
    cited = [(piece, cite) for piece in evidence if (cite := cite_meaning(case, piece.keyword, verdict))]
    # Told that it was wrong, it may have to argue from a keyword that speaks the other way on the whole.
    support = [(piece, cite) for piece, cite in cited if sign * piece.weight > 0][:2] or cited[:1]
    words = [piece.keyword for piece, _ in support] or list(case.target[:2])
    contrary = [piece for piece in reversed(evidence) if sign * piece.weight < 0 and piece not in dict(support)]
    against = [cite for piece in contrary if (cite := cite_meaning(case, piece.keyword, not verdict))]
    if support:
        first = _pick(_EVIDENCE, style[0]).format(_cites(verdict, [cite for _, cite in support]))
    else:
        opening = (_OUTWEIGHED if against else _NOTHING)[verdict]
        first = f"{opening} {case.seen(verdict)} of {len(case.history)} titles were {LIKED[verdict]}."
    return {
        "history": first,
        "taste": _COUNTER[verdict].format(_cites(not verdict, against[:1])) if against else _contrast(case, verdict),
        "fit": _join(_about(case, words, style), _CLOSING[verdict][bool(against)]),
    }


def cite_meaning(case: Case, keyword: str, verdict: bool) -> list[tuple[str, str]]:
    """What bears out a verdict on `keyword` in the history: the latest titles that have it or a synonym, and that word.

    At most TITLES, the oldest first.
    """
    cites = [
        (title, next(word for word in words if meaning(word) == meaning(keyword)))
        for title, words, liked in case.history
        if liked == verdict and is_quotable(title) and meaning(keyword) in map(meaning, words)
    ]
    return cites[-TITLES:]


def _cites(verdict: bool, cites: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Cites in one list, such as `liked "Iron Bridge": revenge, war; liked "Last River": revenge`."""
    words_of: dict[str, list[str]] = {}
    for title, word in chain.from_iterable(cites):
        if word not in words_of.setdefault(title, []):
            words_of[title].append(word)
    return "; ".join(f'{LIKED[verdict]} "{title}": {", ".join(words)}' for title, words in words_of.items())


def _contrast(case: Case, verdict: bool) -> str:
    """What the user avoids (or, for a No, prefers) elsewhere in the history: the other half of the taste."""
    of_target, sign = set(map(meaning, case.target)), 1 if verdict else -1
    others = sorted({word for _, keywords, _ in case.history for word in keywords if meaning(word) not in of_target})
    pieces = sorted(weigh(case, list(filter(is_taste, others))), key=lambda piece: sign * piece.weight)
    pieces = [piece for piece in pieces if sign * piece.weight < 0]
    cites = [cite for piece in pieces if (cite := cite_meaning(case, piece.keyword, not verdict))]
    # What is said of more than one title comes first.
    return _CONTRAST.format(_cites(not verdict, [max(cites, key=len)])) if cites else _NO_CONTRAST


def is_taste(word: str) -> bool:
    """Whether a word may be what somebody likes or dislikes, by the rule that claims are held to."""
    return not is_no_taste(word.lower(), _PLACES)


def is_quotable(title: str) -> bool:
    """Whether a title can be named in quotes, and is worth repeating."""
    return 0 < len(title) <= LONGEST_TITLE and '"' not in title


def _about(case: Case, words: Sequence[str], style: bytes) -> str:
    """What the target has, such as `This is "Iron Bridge": revenge, war.`; empty without words."""
    listed = ", ".join(words)
    if not words or not is_quotable(case.title):
        return listed and f"This one: {listed}."
    return _pick(_TARGET, style[2]).format(f'"{case.title}": {listed}')


def _join(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _pick(options: Sequence[str], number: int) -> str:
    return options[number % len(options)]


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _digest(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()


def _uniform(digest: bytes) -> float:
    """A number in [0, 1) that the digest decides; the first bytes are left to the choice of words."""
    return int.from_bytes(digest[16:24], "big") / 2**64


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
