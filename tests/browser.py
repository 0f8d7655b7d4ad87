"""A headless Chromium that tests talk to by its debugging protocol, over two pipes: no driver, no open port.

Each message is one JSON object and a NUL byte, in both directions: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# One from a snap sees no file of ours.
_FOUND = filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser")))
PROGRAM = next((path for path in _FOUND if "snap" not in os.path.realpath(path)), None)
PATIENCE = 60.0  # seconds for any one answer: a busy machine starts it slowly
# Chromium reads commands from file 3 and answers on file 4.
_LAUNCH = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Browser:
    """One tab. `events` is everything that it reported so far, as (method, parameters)."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest, self._last = read, write, b"", 0
        self._session: str | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command; it must succeed."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._last:
                assert "error" not in found, found
                return dict(found["result"])

    def open(self, path: Path) -> None:
        """Open a file and wait until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            self._next()

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression in the page; promises are awaited."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, *, text: str = "") -> None:
        """One key, as a keyboard sends it."""
        code = {"Tab": 9, "Enter": 13, "ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39}.get(key, 0)
        text = "\r" if key == "Enter" else text
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def emulate(self, *, width: int = 1280, height: int = 900, scheme: str = "light", motion: str = "") -> None:
        """A window of that size, and what its owner prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        self.call("Emulation.setEmulatedMedia", features=[{"name": n, "value": v} for n, v in wishes.items()])

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what the window shows, or of the whole page: for people."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self) -> list[str]:
        """Everything that the console shows and every exception."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(parameters) for method, parameters in self.events if method in kinds]

    def requests(self) -> list[str]:
        """The addresses of everything that was asked for."""
        return [
            parameters["request"]["url"] for method, parameters in self.events if method == "Network.requestWillBeSent"
        ]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(until - time.monotonic(), 0))
            piece = os.read(self._read, 1 << 16) if ready else b""
            assert piece, "the browser fell silent"
            self._rest += piece
        line, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append((message["method"], message.get("params", {})))
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile, ended with the block."""
    assert PROGRAM is not None
    (theirs, write), (read, back) = os.pipe(), os.pipe()
    command = [sys.executable, "-c", _LAUNCH, str(theirs), str(back), PROGRAM, *_FLAGS, f"--user-data-dir={profile}"]
    with subprocess.Popen(command, pass_fds=(theirs, back), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
        os.close(theirs)
        os.close(back)
        try:
            yield Browser(read, write)
        finally:
            it.terminate()
            os.close(read)
            os.close(write)
