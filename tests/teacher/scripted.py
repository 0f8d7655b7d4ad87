"""A teacher in this process that says what a test wants."""

import asyncio
import json

from tests.teacher.server import completion


def scripted(reply, *, tokens=(2, 1)):
    """An ASGI app that says `reply(messages)`, or a pair of that and a finish reason; and the conversations it heard.

    `tokens` are those of the prompt and of the answer, each time.
    """
    heard = []

    async def app(scope, receive, send):
        messages = json.loads((await receive())["body"])["messages"]
        heard.append(messages)
        answer = reply(messages)
        content, finish = answer if isinstance(answer, tuple) else (answer, "stop")
        await asyncio.sleep(0.001 * (len(heard) % 3))  # so that they finish out of order
        body = completion(content, finish=finish, tokens=tokens)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    return app, heard
