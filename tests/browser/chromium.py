"""Headless Chromium for tests of pages: their requests, dialogs, width and colours.

It speaks the DevTools protocol over two pipes (file descriptors 3 and 4), so it needs neither a port nor a library.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="Chromium is absent (Debian: apt install chromium)")

# No host name resolves: a page's requests are recorded and fail.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--no-first-run",
    "--remote-debugging-pipe",
]


class Chromium:
    """One browser with one open tab."""

    def __init__(self, send: int, receive: int) -> None:
        """Attach to a new tab of the browser behind the two pipe ends."""
        self._send, self._receive, self._buffer = send, receive, b""
        self._count, self._session = 0, ""
        self.requests: list[str] = []
        """Addresses requested since the last `open`, without the page itself and `data:`."""
        self.alerts: list[str] = []
        """Texts of the dialogs that the page opened."""
        self.errors: list[str] = []
        """Errors in the console, of scripts and of what the browser refused or could not load."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a local file in a window of the given size in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.requests, self.alerts, self.errors = [], [], []
        self._loaded = False
        self._page = page.resolve().as_uri()
        self.call("Page.navigate", url=self._page)
        while not self._loaded:
            self._note(self._next())

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression; the page's content security policy does not apply to it."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; events received meanwhile are recorded."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._receive, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium ended")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                self.requests += [] if url.split("#")[0] == self._page or url.startswith("data:") else [url]
            case "Page.javascriptDialogOpening":
                self.alerts.append(event["params"]["message"])
                self.call("Page.handleJavaScriptDialog", accept=True)
            case "Runtime.exceptionThrown":
                details = event["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", details).get("description", details["text"]))
            case "Runtime.consoleAPICalled" if event["params"]["type"] in ("error", "assert"):
                self.errors.append(str(event["params"]["args"]))
            case "Log.entryAdded" if event["params"]["entry"]["level"] == "error":
                self.errors.append(event["params"]["entry"]["text"])


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A browser with a fresh profile; it is terminated at the end."""
    to_browser, from_browser = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser expects to read from descriptor 3 and to write to 4.
        script = f'exec "$0" "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
        process = subprocess.Popen(
            ["bash", "-c", script, str(PROGRAM), *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(to_browser[0], from_browser[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Chromium(to_browser[1], from_browser[0])
        finally:
            os.close(to_browser[1])
            os.close(from_browser[0])
            process.terminate()
            process.wait(timeout=20)
