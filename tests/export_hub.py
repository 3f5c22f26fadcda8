"""A Hugging Face Hub on this machine, as much of it as a push needs: it keeps what is sent to it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """What was asked of the hub: calls in order, tokens, the repository made, and the files as commits left them."""

    def __init__(self, files: dict[str, bytes] | None = None, refuse: int | None = None) -> None:
        """`files` are there from before; with `refuse` every call is answered with this status."""
        self.calls: list[str] = []
        self.tokens: set[str | None] = set()
        self.made: dict[str, Any] = {}
        self.files = dict(files or {})
        self.commits: list[str] = []
        self.cards: list[str] = []
        self.refuse = refuse
        self.url = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        path, _, _ = path.partition("?")
        if self.refuse:
            return self.refuse, {"error": "no"}
        if path == "/api/repos/create":
            self.made = json.loads(body)
            return 200, {"url": f"{self.url}/datasets/{self.made['organization']}/{self.made['name']}"}
        if path == "/api/validate-yaml":  # of the card's front matter
            self.cards.append(json.loads(body)["content"])
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            return 200, {
                "files": [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                    for file in json.loads(body)["files"]
                ]
            }
        if "/commit/" in path:
            return 200, self._commit(body)
        if "/tree/" in path:
            return 200, [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in self.files.items()
            ]
        if "/revision/" in path:
            siblings = [{"rfilename": name} for name in self.files]
            return 200, {"id": "me/rows", "sha": "0" * 40, "siblings": siblings, "private": True, "tags": []}
        return 404, {"error": "not here"}

    def _commit(self, body: bytes) -> dict[str, str]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    self.commits.append(value["summary"])
                case "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                case "deletedFile":
                    del self.files[value["path"]]
        return {"commitUrl": f"{self.url}/datasets/me/rows/commit/1", "commitOid": "1" * 40, "pullRequestUrl": ""}


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve it on a port of 127.0.0.1; `hub.url` says which."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.calls.append(f"{self.command} {self.path}")
            hub.tokens.add(self.headers.get("Authorization"))
            status, values = hub.answer(self.command, self.path, body)
            content = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_HEAD = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
