"""A teacher: the offline one or any OpenAI-compatible server, with its key, store and budget, and its faults in words.

The key is in no message: servers repeat it in their refusals, so whatever a server says goes through `Teacher.mask`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from thinkrec.artifacts import RESPONSES
from thinkrec.errors import UserError
from thinkrec.params import TeacherSettings
from thinkrec.teacher import offline
from thinkrec.teacher.answers import Answer, read_answer
from thinkrec.teacher.budget import PATIENCE, Budget, Spent

OFFLINE = "offline"
KEY_VARIABLES = ("THINKREC_TEACHER_KEY", "OPENAI_API_KEY")  # the second for OpenAI's own hosts alone
RETRIES = 5
LEAST_SECRET = 16  # characters of a key that nobody writes by chance

_OPENAI = re.compile(r"(?:[\w-]+\.)?api\.openai\.com|[\w.-]+\.(?:openai|cognitiveservices|services\.ai)\.azure\.com")
_ACCOUNTS = ("OpenAI-Organization", "OpenAI-Project")

# Up to so many retries: none where the server says so, or asks for a longer wait than the client bears.
# The first line that fits says what to do; subclasses stand before their bases.
_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (openai.AuthenticationError, f"refused the key; set {KEY_VARIABLES[0]} to a valid one"),
    (openai.PermissionDeniedError, "forbids this key the model {model}; choose another teacher.model or key"),
    (openai.NotFoundError, "does not know the model {model}, or is no such API; mend teacher.model or .endpoint"),
    (openai.RateLimitError, "turned us away for {patience} s on end ({error}); lower run.concurrency, mend "
                            "the quota or run again later"),
    (openai.APITimeoutError, "gave no answer within {timeout:g} s; raise run.timeout or lower "
                             "run.concurrency"),
    (openai.APIConnectionError, "cannot be reached, or breaks off; check teacher.endpoint, and that the server runs"),
    (openai.InternalServerError, "still failed after up to {retries} retries ({error}), which is its own fault; run "
                                 "again later"),
    (openai.APIResponseValidationError, "answers, but not as an OpenAI-compatible API; does teacher.endpoint end in "
                                        "/v1?"),
    (Exception, "failed ({error}); check teacher.endpoint and teacher.model"),
)  # fmt: skip

Request = dict[str, Any]  # the body of a question: model, messages and further fields
Responder = Callable[[Request], Awaitable[tuple[int, dict[str, Any]]]]  # the status and the body of the response
Listener = Callable[[str, Request, Answer | None], None]  # hears a question's key, the question, the store's answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Who is asked, and how: see `client.ask_about`."""

    params: TeacherSettings
    respond: Responder | None  # of a teacher in this process; None for one behind a network
    key: str = field(repr=False)
    budget: Budget = field(repr=False)
    retries: int = RETRIES
    patience: float = PATIENCE  # seconds that it may turn all requests away
    store: Path | None = None  # of the answers; None: every question is sent
    listener: Listener | None = None  # where set, nothing is sent, and it hears of every question

    @property
    def spent(self) -> Spent:
        """What this run has sent and what that took, so far."""
        return self.budget.spent

    @property
    def place(self) -> str:
        """Where it is; see `place`."""
        return place(self.params.endpoint)

    @property
    def access(self) -> dict[str, Any]:
        """What the `openai` client is given to get in: the environment's accounts at OpenAI stay at home."""
        endpoint = self.params.endpoint
        headers = {} if is_openai(endpoint) else dict.fromkeys(_ACCOUNTS, openai.Omit())
        return {"api_key": self.key or "none", "base_url": endpoint, "default_headers": headers}

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, where no proxy of the environment leads."""
        host = urlsplit(self.params.endpoint).hostname or ""
        with suppress(ValueError):
            address = ip_address(host)
            return address.is_loopback or address.is_unspecified
        return host == "localhost" or host.endswith(".localhost")

    def require_key(self) -> None:
        """Raise the one line that says that a key is missing, or would travel where anybody can read it.

        Plain http to another machine goes without a key, as to a server in one's own network.
        """
        if self.is_local or self.respond:
            return
        address = urlsplit(self.params.endpoint)
        if address.scheme == "http" and (self.key or address.password):
            raise UserError(
                f"teacher at {self.place}: no key goes over plain http to another machine; use https, or unset "
                f"{KEY_VARIABLES[0]}"
            )
        if address.scheme == "https" and not self.key:
            raise UserError(
                f"teacher at {self.place}: needs a key; set {KEY_VARIABLES[0]} in the environment ({KEY_VARIABLES[1]} "
                "goes to OpenAI's own hosts alone)"
            )

    def read_answer(self, status: int, body: object) -> Answer | None:
        """The answer in a response's status and body, or None.

        A key that the server repeats is hidden, since answers are shared; one too short for a secret may be any word.
        """
        answer = read_answer(status, body)
        if answer is None or len(self.key) < LEAST_SECRET:
            return answer
        texts: dict[str, Any] = {
            name: self._hide_key(text) for name, text in asdict(answer).items() if isinstance(text, str)
        }
        return replace(answer, **texts)

    def mask(self, text: str) -> str:
        """A server's own words on one line, without the key and without anything that steers a terminal."""
        text = " ".join(self._hide_key(text).split())[:200]
        return "".join(character for character in text if character.isprintable())

    def fault(self, kind: type[Exception], text: str = "") -> UserError:
        """The one line for a fault: which teacher, what went wrong (`text` is the server's word), what to do."""
        advice = next(advice for error, advice in _ADVICE if issubclass(kind, error))
        line = advice.format(
            model=repr(self.params.model),
            retries=self.retries,
            patience=f"{self.patience:g}",
            timeout=self.params.timeout,
            error=self.mask(text),
        )
        return UserError(f"teacher at {self.place} {line}")

    def _hide_key(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text

    def describe_cap(self) -> str:
        """Which cap a run has reached."""
        cap = self.budget.stopped
        setting = f"run.{cap}={getattr(self.params, str(cap))}"
        if cap == "max_requests":
            return f"all {setting} of this run are sent"
        return f"{setting} has no room for another request"

    def cap_reached(self) -> UserError:
        """The one line for the cap that has kept something back: which, what was spent, how to go on."""
        kept = f"is in {self.store}, so run again to go on" if self.store else "is lost; raise it"
        return UserError(f"teacher at {self.place}: {self.describe_cap()}; what they brought ({self.spent}) {kept}")


def open_teacher(params: TeacherSettings) -> Teacher:
    """The teacher of `teacher.endpoint`: the offline one, or any OpenAI-compatible base URL.

    A remote teacher without a key is no fault before something has to be sent: what the store knows needs none.
    """
    if params.endpoint == OFFLINE:
        return Teacher(params=params, respond=offline.respond, key="", budget=Budget(params))
    try:
        address = urlsplit(params.endpoint)
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, a bracket left open
        usable = False
    if not usable:
        raise UserError(
            f"params.yaml: teacher.endpoint should be {OFFLINE} or a base URL such as https://host/v1; mend it"
        )
    names = KEY_VARIABLES if is_openai(params.endpoint) else KEY_VARIABLES[:1]
    key = next((value for name in names if (value := os.environ.get(name, "").strip())), "")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"teacher at {place(params.endpoint)}: the key has characters no header can carry; set it anew")
    return Teacher(params=params, respond=None, key=key, budget=Budget(params), store=store_path())


def open_replay(params: TeacherSettings, listener: Listener) -> Teacher:
    """The same teacher, answering from the store alone: nothing is sent, and `listener` hears of every question."""
    if params.endpoint == OFFLINE:
        raise UserError(
            "params.yaml: teacher.endpoint is offline, whose answers are free and the same everywhere, "
            "so none are kept; name another teacher"
        )
    return replace(open_teacher(params), listener=listener)


def store_path() -> Path:
    """Where answers are kept: $THINKREC_STORE, else `RESPONSES` (which does not outlast a queued experiment)."""
    return Path(os.environ.get("THINKREC_STORE", "").strip() or RESPONSES)


def is_openai(endpoint: str) -> bool:
    """Whether an address is OpenAI's own, or Azure's."""
    address = urlsplit(endpoint)
    return address.scheme == "https" and bool(_OPENAI.fullmatch(address.hostname or ""))


def place(endpoint: str) -> str:
    """Where a teacher is, fit for a message: no user, password or query of its address."""
    if endpoint == OFFLINE:
        return OFFLINE
    address = urlsplit(endpoint)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
