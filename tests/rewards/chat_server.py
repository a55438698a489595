"""A real HTTP server on this machine for chat completions; the prompt says how it replies."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


class ChatServer(ThreadingHTTPServer):
    """Replies X to `say X`, status N to `status N`, and once to `busy N`; see `_Handler` for other prompts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.closing = Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def attempts(self, prompt: str) -> int:
        """Number of requests with this prompt."""
        return sum(asked["messages"][0]["content"] == prompt for _, _, asked in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), asked))
        prompt = asked["messages"][0]["content"]
        verb, _, rest = prompt.partition(" ")
        if verb == "status" or (verb == "busy" and self.server.attempts(prompt) == 1):
            self._send(int(rest), b"{}")
        elif verb == "sleep":
            self.server.closing.wait()  # it replies only when the client has given up
        elif verb == "garbage":
            self._send(200, rest.encode())
        else:
            self._send(200, json.dumps({"choices": [{"message": {"content": rest}}]}).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """The server, while the body runs."""
    with ChatServer() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
