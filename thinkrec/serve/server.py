"""`thinkrec serve`: the answers of `Recommender` over HTTP, to the bit; see docs/serve.md.

Names are looked up beside the models, which one thread asks (`serve.batching`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.middleware.trustedhost import TrustedHostMiddleware

import thinkrec.report
from thinkrec.answers.explanation import Explanation, Scored, as_rows
from thinkrec.errors import UserError
from thinkrec.recommender import SHORTLIST, History, Recommender
from thinkrec.serve.batching import Busy, ModelThread, Task
from thinkrec.serve.guard import Guard

TOKEN = "THINKREC_SERVE_TOKEN"
HERE, REPORT = Path(__file__).parent, Path(str(thinkrec.report.__file__)).parent
PAGE = {"/": HERE / "page.html", "/serve.js": HERE / "serve.js", "/page.css": REPORT / "page.css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'"
)
MOST = 1000  # items of a request
LISTED = 50  # users or items that a search lists
Name = Annotated[str, Field(min_length=1, max_length=500)]
Text = Annotated[str, Query(max_length=500)]


class Liked(BaseModel):
    """An item, by id or title, and whether somebody liked it."""

    item: Name
    liked: bool


class Somebody(BaseModel):
    """A user of the dataset by id, or the history of a person never seen, oldest first."""

    model_config = ConfigDict(extra="forbid")

    user: Name | None = None
    history: Annotated[list[Liked], Field(max_length=MOST)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Somebody:
        if (self.user is None) == (self.history is None):
            raise ValueError("name a user, or give a history (one of the two)")
        return self

    @property
    def who(self) -> str | History:
        """The same as `Recommender` takes it."""
        return self.user if self.user is not None else [(pair.item, pair.liked) for pair in self.history or ()]


class ScoreRequest(Somebody):
    """Items, by id or title, to be scored for somebody."""

    items: Annotated[list[Name], Field(min_length=1, max_length=MOST)]


class RecommendRequest(Somebody):
    """How many items to recommend to somebody, of how many that the feature model picks."""

    k: Annotated[int, Field(ge=1, le=MOST)] = 10
    shortlist: Annotated[int, Field(ge=1, le=MOST)] = SHORTLIST


class ExplainRequest(Somebody):
    """An item, by id or title, to be explained to somebody."""

    item: Name


def check_host(host: str) -> str | None:
    """The token that requests must name, from the environment; None where none is set and `host` is this machine.

    Raises:
        UserError: others could reach `host`, and there is no token.
    """
    token = os.environ.get(TOKEN) or None
    if token is None and not _is_local(host):
        raise UserError(f"--host {host}: others can reach that; set {TOKEN} to a token that requests must name")
    return token


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_app(
    recommender: Recommender,
    *,
    token: str | None = None,
    waiting: int = 256,
    timeout: float = 30.0,
    host: str | None = "127.0.0.1",
) -> Guard:
    """The application; it answers to this machine's names and `host`, or to any (None)."""
    models = ModelThread(recommender.answer, waiting=waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(models.close)

    app = FastAPI(title="thinkrec", docs_url=None, redoc_url=None, lifespan=lifespan)

    async def ask(prepare: Callable[[], Task]) -> Any:
        task = await run_in_threadpool(prepare)
        return await asyncio.wait_for(asyncio.wrap_future(models.submit(task)), timeout)

    def refuse(kind: type[Exception], status: int, detail: str, **headers: str) -> None:
        async def handler(_: Request, error: Exception) -> Response:
            return JSONResponse({"detail": detail or str(error)}, status, headers)

        app.add_exception_handler(kind, handler)

    refuse(UserError, 400, "")
    refuse(Busy, 429, "as many questions wait as may; ask again", **{"Retry-After": "1"})
    refuse(TimeoutError, 504, "not answered in time")

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        faults = (f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
        return JSONResponse({"detail": "; ".join(faults)}, 422)

    @app.post("/score")
    async def score(request: ScoreRequest) -> list[Scored]:
        """The probabilities that somebody would like some items, in their order."""
        return as_rows(await ask(partial(recommender.scoring, request.who, request.items)), Scored)

    @app.post("/recommend")
    async def recommend(request: RecommendRequest) -> list[Scored]:
        """The items that somebody would most probably like, best first, those rated left out."""
        prepare = partial(recommender.ranking, request.who, request.k, shortlist=request.shortlist)
        return as_rows(await ask(prepare), Scored)

    @app.post("/explain", response_model=Explanation)
    async def explain(request: ExplainRequest) -> Response:
        """A score, the experts' weights, the shown history, and the reason with its evidence."""
        explanation = await ask(lambda: partial(recommender.explain, request.who, request.item))
        return Response(explanation.model_dump_json(), media_type="application/json")

    @app.get("/users")
    def users(text: Text = "") -> list[dict[str, Any]]:
        """Users by what their ids have in them."""
        return recommender.find_users(text).head(LISTED).to_dict("records")  # type: ignore[return-value]

    @app.get("/items")
    def items(text: Text) -> list[dict[str, Any]]:
        """Items by what their titles have in them, or by id."""
        return recommender.find_items(text).head(LISTED).to_dict("records")  # type: ignore[return-value]

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether it answers, and how many users and items it knows."""
        counts = {"users": len(recommender.names.user_ids), "items": len(recommender.names.item_ids)}
        return {"status": "ok", **counts, "waiting": models.waiting}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        """Counts in Prometheus's text format."""
        gauges = {"waiting": models.waiting, "passes_total": models.passes, "questions_total": models.questions}
        return "\n".join([*guard.metrics(**gauges), ""])

    def add_page(path: str, file: Path) -> None:
        app.add_route(path, lambda _: FileResponse(file, headers={"Content-Security-Policy": POLICY}))

    for path, file in PAGE.items():
        add_page(path, file)
    if host is not None:  # or a page elsewhere could point a name of its own at this machine
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", host])
    paths = {"/score", "/recommend", "/explain", "/users", "/items", "/health", "/metrics", "/openapi.json", *PAGE}
    guard = Guard(app, paths=paths, token=token, timeout=timeout)
    return guard


def run(recommender: Recommender, host: str, port: int, *, token: str | None, waiting: int, timeout: float) -> int:
    """Answer until SIGTERM or SIGINT, then what has begun; returns how many requests were answered.

    Raises:
        UserError: it cannot listen there.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there ({error.strerror})") from None
    shown = f"[{host}]" if ":" in host else host
    named = shown if _is_local(host) else None
    guard = make_app(recommender, token=token, waiting=waiting, timeout=timeout, host=named)
    config = uvicorn.Config(guard, log_config=None, log_level="warning", access_log=False)
    # uvicorn raises the signal that stopped it once more, when it has stopped; that shall not end this process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    typer.echo(f"serve: http://{shown}:{listener.getsockname()[1]}/", err=True)
    sys.stderr.flush()
    uvicorn.Server(config).run(sockets=[listener])
    return sum(guard.answered.values())
