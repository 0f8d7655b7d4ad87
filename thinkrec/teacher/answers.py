"""What a server's response says: the answer as it is kept and as it is read, or why there is none.

Generic servers leave out what OpenAI's format says is there, so everything is looked at before it is believed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

MOST_TOKENS = 10_000_000  # of a prompt or an answer, beyond any model there is

_FLAGGED = {"content_filter", "content_policy_violation", "invalid_prompt"}  # what hosts call a question they refuse
# Reasoning models behind generic servers leave their scratch work in the answer, its opening tag often in the prompt.
_SCRATCH = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said, as the store keeps it."""

    content: str
    reasoning_content: str
    refusal: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as stages read it: its text without scratch work ("" where there is none) and what came with it."""

    text: str
    finish_reason: str
    refused: bool
    prompt_tokens: int
    completion_tokens: int
    reasoning: str = ""  # scratch work that the server gives apart from the text


def read_reply(answer: Answer) -> Reply:
    """The reply in an answer."""
    return Reply(
        text=_SCRATCH.sub("", answer.content).strip(),
        finish_reason=answer.finish_reason,
        refused=bool(answer.refusal) or answer.finish_reason == "content_filter",
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        reasoning=answer.reasoning_content.strip(),
    )


def read_completion(body: object) -> Answer | None:
    """The answer in the body of a chat completion; None where the body is anything else."""
    fields = as_object(body)
    choices = fields.get("choices")
    if not isinstance(choices, list):
        return None
    choice = as_object(choices[0]) if choices else {}
    message = as_object(choice.get("message"))
    prompt_tokens, completion_tokens = read_usage(fields) or (0, 0)
    return Answer(
        content=_joined_parts(message.get("content")),
        reasoning_content=_text(message.get("reasoning_content")),
        refusal=_text(message.get("refusal")),
        finish_reason=_text(choice.get("finish_reason")),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def read_flag(error: object) -> Answer | None:
    """What stands for the answer to a question that the host did not pass on to the model, by the error of a 400.

    None: the error is another one.
    """
    if as_object(error).get("code") not in _FLAGGED:
        return None
    return Answer(
        content="",
        reasoning_content="",
        refusal=error_text(error),
        finish_reason="content_filter",
        prompt_tokens=0,
        completion_tokens=0,
    )


def read_usage(body: Mapping[str, Any]) -> tuple[int, int] | None:
    """The (prompt, completion) tokens that a response says it took.

    None where it does not say, or says what cannot be: a prompt of none, less than nothing, more than `MOST_TOKENS`.
    """
    usage = as_object(body.get("usage"))
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (type(prompt) is int and type(completion) is int):
        return None
    return (prompt, completion) if 1 <= prompt <= MOST_TOKENS and 0 <= completion <= MOST_TOKENS else None


def error_text(error: object) -> str:
    """What a server's error says, in whichever of the usual places."""
    fields = as_object(error)
    return _text(fields.get("message") or fields.get("detail") or error)


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object in a body or line; empty for anything else."""
    try:
        return as_object(json.loads(content))
    except (ValueError, RecursionError):  # nested deeper than anybody reads
        return {}


def as_object(value: object) -> dict[str, Any]:
    """A JSON object; empty for what is none."""
    return value if isinstance(value, dict) else {}


def write_answer(answer: Answer) -> str:
    """An answer as JSON in one line; equal answers are equal texts."""
    return json.dumps(asdict(answer), ensure_ascii=False)


def read_answer(text: str) -> Answer:
    """The answer that `write_answer` wrote.

    Raises:
        ValueError: it is none.
    """
    values = json.loads(text)
    types = {field.name: int if field.name.endswith("_tokens") else str for field in fields(Answer)}
    if not isinstance(values, dict) or {name: type(value) for name, value in values.items()} != types:
        raise ValueError(f"an answer should be an object with {', '.join(types)}")
    for name, value in values.items():
        if isinstance(value, str):
            value.encode()  # half a character raises
        elif not 0 <= value <= MOST_TOKENS:
            raise ValueError(f"{name} should be from 0 to {MOST_TOKENS:,}")
    return Answer(**values)


def _text(value: object) -> str:
    """A text, empty for what is none; JSON can spell halves of characters that no file can hold."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _joined_parts(content: object) -> str:
    """A message's text, which some servers give in parts; parts of another type (such as thinking) are left out."""
    if not isinstance(content, list):
        return _text(content)
    return "".join(_text(part.get("text")) for part in map(as_object, content) if part.get("type") == "text")
