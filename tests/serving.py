"""`transformers serve`, a real server of language models, for tests."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

STARTED = 120.0  # seconds, on a busy machine
MISSING = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
SERVED = [
    pytest.mark.integration,
    pytest.mark.skipif(
        bool(MISSING), reason=f"transformers serve needs {' and '.join(MISSING)}: pip install 'thinkrec[serving]'"
    ),
]


@contextmanager
def transformers_serve(model, home):
    """The base URL of `transformers serve` for one model directory, with no hub and no key."""
    (home / "hub").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log = home / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            latest = time.monotonic() + STARTED
            while not _healthy(port):
                assert process.poll() is None and time.monotonic() < latest, log.read_text()[-2000:]
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def _healthy(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
