"""What a server's response says: the answer in it, as the store keeps it and stages read it, or none.

Generic servers leave out what OpenAI's format says is there, so everything is looked at before it is believed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, TypeVar

import httpx2
from pydantic import Field, TypeAdapter, ValidationError

from thinkrec.claims.answers import scratch_of, without_scratch

MOST_TOKENS = 10_000_000  # of a prompt or an answer, beyond any model there is

# Finish reasons of our own: of a question that its host did not pass on to the model, known by its error, and of one
# that the host turned down alone, for a reason that we cannot tell.
NOT_TAKEN, SET_ASIDE = "not_taken", "set_aside"
TURNED_DOWN = (400, 413, 422)  # status of what may be one question's own fault
# What other APIs call an answer that was cut off, and one that a filter stopped or took away.
_LENGTH = re.compile(r"(?:max|model)(?:_output|_completion)?_(?:tokens|length)", re.IGNORECASE)
_FILTERED = re.compile(
    r"\A(?:content_filter|safety|recitation|prohibited_content|blocklist|spii|sensitive|refusal|guardrail_intervened)\b.*",
    re.IGNORECASE | re.DOTALL,
)
# What hosts call a question that they refuse: by its code or type, or in words; so where it is too long.
_FLAGGED = re.compile(
    r"\A(?:\S+ )?(?:content_filter|content_policy_violation|invalid_prompt) "
    r"|\b(?:input|prompt|message)s? (?:was|were) flagged"
)
_TOO_LONG = re.compile(
    r"context.{0,20}(?:length|size|window)|(?:prompt|input|request|messages?)\b.{0,20}\btoo (?:long|large)"
    r"|string_above_max_length|exceeds? the (?:maximum|limit).{0,40}tokens",
    re.IGNORECASE,
)


T = TypeVar("T")
_Count = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said. A question that its host did not pass on to the model is answered by the refusal."""

    content: str = ""
    reasoning_content: str = ""  # scratch work that the server gives apart from the content
    refusal: str = ""
    finish_reason: str = ""
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0

    @property
    def text(self) -> str:
        """The content without scratch work; "" where nothing else is in it."""
        return without_scratch(self.content).strip()

    @property
    def scratch(self) -> str:
        """The scratch work, given apart or in the content, on one line; "" where there is none."""
        return " ".join((self.reasoning_content.strip() or scratch_of(self.content)).split())

    @property
    def empty(self) -> bool:
        """Whether nothing was said, not even a refusal. Cut off before a first word is not empty: it was paid for."""
        words = self.content.strip() or self.reasoning_content.strip() or self.refused
        return not (words or (self.finish_reason == "length" and self.completion_tokens))

    @property
    def hiccup(self) -> bool:
        """Whether it comes of a fault of the server, which made no token of it or broke off."""
        return self.finish_reason == "error" or (self.empty and not (self.completion_tokens and self.finish_reason))

    @property
    def final(self) -> bool:
        """Whether the host would turn down another turn, too."""
        return self.finish_reason in (NOT_TAKEN, SET_ASIDE)

    @property
    def refused(self) -> bool:
        """Whether the server says that it refuses to answer."""
        return bool(self.refusal) or self.finish_reason == "content_filter"


_ANSWER = TypeAdapter(Answer)


def read_answer(status: int, body: object) -> Answer | None:
    """The answer in a chat completion's status and body; None: it is none, but an error or another API's response."""
    response = as_object(body)
    choices, error = response.get("choices"), read_error(body)
    if (error or status in (400, 403)) and _FLAGGED.search(_describe(error or body)):
        return Answer(refusal=error_text(error or body) or "no reason given", finish_reason="content_filter")
    if (error or status >= 400) and _TOO_LONG.search(_describe(error or body)):
        return Answer(refusal=error_text(error or body), finish_reason=NOT_TAKEN)
    if not (200 <= status < 300 and isinstance(choices, list)) or error:
        return None
    choice = as_object(choices[0]) if choices else {}
    message = as_object(choice.get("message"))
    finish_reason = _FILTERED.sub("content_filter", _LENGTH.sub("length", _text(choice.get("finish_reason"))))
    if not message and finish_reason != "content_filter":
        return None
    prompt_tokens, completion_tokens = read_usage(response) or (0, 0)
    answer = Answer(
        content=_joined_parts(message.get("content")),
        reasoning_content=_text(message.get("reasoning_content"))
        or _text(message.get("reasoning"))
        or _joined_parts(message.get("reasoning_details"), kind="reasoning.text"),
        refusal=_text(message.get("refusal")),
        finish_reason=finish_reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )
    return None if answer.hiccup else answer


def read_error(body: object) -> object:
    """The error in a response's body: beside the choices or in the first of them; None where there is none."""
    response = as_object(body)
    choices = response.get("choices")
    choice = as_object(choices[0]) if isinstance(choices, list) and choices else {}
    return response.get("error") or choice.get("error") or (response if response.get("object") == "error" else None)


def _describe(error: object) -> str:
    details = _innermost(error)
    return f"{details.get('code')} {details.get('type')} {error_text(error)}"


def error_status(error: object) -> int:
    """The HTTP status that an error names as its code, 0 where it names none."""
    details = _innermost(error)
    code = str(details.get("code") or details.get("status") or "")
    return int(code) if re.fullmatch("[45][0-9]{2}", code) else 0


def read_usage(body: Mapping[str, Any]) -> tuple[int, int] | None:
    """The (prompt, completion) tokens that a response took: the largest reading of what it says that is consistent.

    Hosts differ in what they count apart. A completion is at least what the total leaves beside the prompt, and
    thoughts are part of it only where it is no smaller than they. None where a response does not say, or says what
    cannot be: a prompt of none, less than nothing, more than `MOST_TOKENS`.
    """
    usage = as_object(body.get("usage"))
    details = as_object(usage.get("completion_tokens_details"))
    numbers: Any = [usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total")]
    prompt, completion, total = numbers
    counts = [count for count in numbers if count is not None]
    if len(counts) < 2 or not all(_is_count(count) for count in (prompt or 0, completion or 0)):
        return None
    thoughts: Any = next((count for where in (details, usage) if _is_count(count := where.get("reasoning_tokens"))), 0)
    total, completion = total if _is_count(total) else 0, completion or 0
    prompt = prompt or total - completion
    completion = max(completion + (thoughts if thoughts > completion else 0), total - prompt)
    return (prompt, completion) if prompt >= 1 and completion <= MOST_TOKENS else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_TOKENS


def read_wait(headers: httpx2.Headers) -> float:
    """The seconds that a server asks to be left alone, as a number or a date; 0 where it names no such time."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(ValueError):
            wait = float(headers.get(name, "")) / unit
            return wait if wait > 0 else 0.0  # not a number, either
    with suppress(ValueError, OverflowError):
        return max(parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time(), 0.0)
    return 0.0


def error_text(error: object) -> str:
    """What a server's error says, in whichever of the usual places, errors within errors included."""
    details = _innermost(error)
    text = _text(details.get("message") or details.get("detail") or details.get("error") or error)
    field = _text(details.get("param"))
    return f"{text} ({field})" if text and field and field not in text else text


def _innermost(error: object) -> dict[str, Any]:
    """An error's own fields, where gateways wrap one in another, also as JSON in a message."""
    details = as_object(error)
    for name in ("error", "message", "detail"):
        inner = details.get(name)
        if isinstance(inner, str) and inner.lstrip().startswith("{"):
            inner = parse_object(inner)
        if isinstance(inner, dict) and inner:
            return {**details, name: None} | _innermost(inner)
    return details


def parse_object(content: str | bytes) -> dict[str, Any]:
    """The JSON object in a body or line, alone or the only one of a list, as Google's errors are; else an empty one."""
    try:
        value = json.loads(content)
        return as_object(value[0] if isinstance(value, list) and len(value) == 1 else value)
    except (ValueError, RecursionError):  # nested deeper than anybody reads
        return {}


def as_object(value: object) -> dict[str, Any]:
    """A JSON object; empty for what is none."""
    return value if isinstance(value, dict) else {}


def dump_answer(answer: Answer) -> str:
    """An answer as JSON in one line; equal answers are equal texts."""
    return json.dumps(asdict(answer), ensure_ascii=False)


def load_answer(text: str) -> Answer:
    """The answer that `dump_answer` wrote; a ValueError where it is none."""
    return validate(_ANSWER, text)


def validate(kind: TypeAdapter[T], text: str) -> T:
    """What JSON stands for; a ValueError in one line where it is not of its kind."""
    try:
        return kind.validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, fault['loc'])) or 'all of it'}: {fault['msg']}") from None


def _text(value: object) -> str:
    """A text, empty for what is none; JSON can spell halves of characters that no file can hold."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _joined_parts(content: object, *, kind: str = "text") -> str:
    """A message's text, which some servers give in parts; parts of another type (such as thinking) are left out."""
    if not isinstance(content, list):
        return _text(content)
    return "".join(_text(part.get("text")) for part in map(as_object, content) if part.get("type") == kind)
