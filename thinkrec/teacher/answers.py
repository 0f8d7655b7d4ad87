"""What a server's response says: the answer in it, as the store keeps it and stages read it, or none.

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
    """What a server said. A question that its host did not pass on to the model is answered by the refusal."""

    content: str = ""
    reasoning_content: str = ""  # scratch work that the server gives apart from the content
    refusal: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def text(self) -> str:
        """The content without scratch work; "" where nothing else is in it."""
        return _SCRATCH.sub("", self.content).strip()

    @property
    def refused(self) -> bool:
        """Whether the server says that it refuses to answer."""
        return bool(self.refusal) or self.finish_reason == "content_filter"


def read_answer(status: int, body: object) -> Answer | None:
    """The answer in a chat completion's status and body; None: it is none, but an error or another API's response."""
    response = as_object(body)
    choices, error = response.get("choices"), response.get("error") or response
    if status == 400 and as_object(error).get("code") in _FLAGGED:
        return Answer(refusal=error_text(error), finish_reason="content_filter")
    if not (200 <= status < 300 and isinstance(choices, list)):
        return None
    choice = as_object(choices[0]) if choices else {}
    message = as_object(choice.get("message"))
    prompt_tokens, completion_tokens = read_usage(response) or (0, 0)
    return Answer(
        content=_joined_parts(message.get("content")),
        reasoning_content=_text(message.get("reasoning_content")),
        refusal=_text(message.get("refusal")),
        finish_reason=_text(choice.get("finish_reason")),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
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
    details = as_object(error)
    return _text(details.get("message") or details.get("detail") or error)


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object in a body or line; empty for anything else."""
    try:
        return as_object(json.loads(content))
    except (ValueError, RecursionError):  # nested deeper than anybody reads
        return {}


def as_object(value: object) -> dict[str, Any]:
    """A JSON object; empty for what is none."""
    return value if isinstance(value, dict) else {}


def dump_answer(answer: Answer) -> str:
    """An answer as JSON in one line; equal answers are equal texts."""
    return json.dumps(asdict(answer), ensure_ascii=False)


def load_answer(text: str) -> Answer:
    """The answer that `dump_answer` wrote.

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
