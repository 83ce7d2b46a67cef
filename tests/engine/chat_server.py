"""A server on this machine that speaks the part of the OpenAI protocol that a judge uses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What a judge is answered: a text, or (status, body, headers) as they are.
Said = str | tuple[int, bytes, dict[str, str]]


@dataclass
class ChatServer:
    """`say` makes the answer to a question; requests and their headers are kept."""

    say: Callable[[str], Said]
    usage: bool = True
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


def completion(text: str | None, *, usage: bool) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    counted = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        **({"usage": counted} if usage else {}),
    }


@contextmanager
def chatting(say: Callable[[str], Said], *, usage: bool = True) -> Iterator[ChatServer]:
    server = ChatServer(say, usage)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append({**body, "path": self.path})
            server.headers.append(dict(self.headers))
            said = server.say(body["messages"][0]["content"])
            status, data = 200, b""
            more: dict[str, str] = {}
            if isinstance(said, str):
                data = json.dumps(completion(said, usage=server.usage)).encode()
            else:
                status, data, more = said
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data))} | more).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def answers_in(question: str) -> tuple[str, str]:
    """(A, B) of a judge's question."""
    parts = question.split(" answer A\n", 1)[1]
    a, rest = parts.split(" answer B\n", 1)
    b = rest.split(" end\n", 1)[0]
    return a.rsplit("\n", 1)[0], b.rsplit("\n", 1)[0]


def prefers(wanted: Callable[[str, str], str]) -> Callable[[str], str]:
    """A judge whose verdict of (A, B) is the letter that `wanted` gives."""
    return lambda question: f"Because. [[{wanted(*answers_in(question))}]]"


def longer(a: str, b: str) -> str:
    """A verdict by length alone, which does not depend on the order."""
    return "C" if len(a) == len(b) else "A" if len(a) > len(b) else "B"
