"""A teacher in this process that says what a test wants."""

import asyncio

from tests.teacher.server import completion


def scripted(reply, *, tokens=(2, 1)):
    """A teacher that says `reply(messages)`, or a pair of that and a finish reason; and the conversations it heard.

    `tokens` are those of the prompt and of the answer, each time.
    """
    heard = []

    async def respond(request):
        messages = request["messages"]
        heard.append(messages)
        answer = reply(messages)
        content, finish = answer if isinstance(answer, tuple) else (answer, "stop")
        await asyncio.sleep(0.001 * (len(heard) % 3))  # so that they finish out of order
        return 200, completion(content, finish=finish, tokens=tokens)

    return respond, heard
