"""A Hub on a loopback port: the HTTP surface that huggingface_hub and datasets really use.

It keeps repositories with commits in memory, checks tokens, privacy, parents of commits and the
hashes of uploads, and can misbehave on demand: `hub.fail(pattern, action, times)` makes the next
matching requests fail. Actions: an HTTP status, "reset" (the connection dies while the body is
read), "lost" (the work is done, the reply is not sent), "silent" (no reply for `silent_s`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_loopbackSecretToken0123456789"
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Commit:
    id: str
    title: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1].files

    @property
    def pushes(self) -> list[Commit]:
        """The commits after the one that the Hub itself makes."""
        return self.commits[1:]

    def add(self, title: str, message: str, files: dict[str, bytes]) -> Commit:
        text = f"{len(self.commits)} {title} {sorted(files)}"
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), title, message, files)  # noqa: S324
        self.commits.append(commit)
        return commit

    def at(self, revision: str) -> Commit | None:
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit.id == revision), None)


@dataclass
class Fault:
    pattern: re.Pattern[str]
    action: int | str
    times: int
    headers: dict[str, str]


class Hub:
    """The state behind the server; tests read and seed it directly."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.silent_s = 2.0
        self.upload_host = ""
        self.lock = threading.RLock()
        self.endpoint = ""

    def seed(
        self, kind: str, name: str, files: dict[str, bytes] | None = None, *, private: bool = True
    ) -> Repo:
        repo = Repo(private)
        repo.add("initial commit", "", {".gitattributes": b"*.parquet filter=lfs\n"})
        if files is not None:
            repo.add("seeded", "", files)
        self.repos[kind, name] = repo
        return repo

    def fail(
        self, pattern: str, action: int | str, times: int = 1, headers: dict[str, str] | None = None
    ) -> None:
        self.faults.append(Fault(re.compile(pattern), action, times, headers or {}))

    def fault_for(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.pattern.search(request):
                    fault.times -= 1
                    return fault
        return None

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.seen)


def is_lfs(path: str, size: int) -> bool:
    return path.endswith((".parquet", ".safetensors", ".gz")) or size > 10_000_000


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def etag(path: str, data: bytes) -> str:
    return sha256(data) if is_lfs(path, len(data)) else blob_id(data)


class Reply(Exception):
    """Ends the handling of a request with an error status."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        return

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reset(self) -> None:
        """Close with RST, as a crashed peer does."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    def serve(self) -> None:
        request = f"{self.command} {self.path}"
        self.hub.seen.append(request)
        fault = self.hub.fault_for(request)
        action = fault.action if fault else None
        if action == "reset":
            self.rfile.read(min(100, int(self.headers.get("Content-Length") or 0)))
            self.reset()
            return
        sent = self.body()
        if action == "silent":
            time.sleep(self.hub.silent_s)
            self.reset()
            return
        if fault is not None and isinstance(action, int):
            self.reply(action, b"{}", fault.headers)
            return
        try:
            with self.hub.lock:
                status, content, headers = self.route(sent)
        except Reply as error:
            named = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            content = json.dumps({"error": error.message}).encode()
            status, headers = error.status, {k: v for k, v in named.items() if v}
        if action == "lost":
            self.reset()
            return
        self.reply(status, content, headers)

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def route(self, sent: bytes) -> tuple[int, bytes, dict[str, str]]:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/upload/([0-9a-f]{64})", path):
            if sha256(sent) != match[1]:
                raise Reply(400, message="the upload does not have this hash")
            self.hub.objects[match[1]] = sent
            return 200, b"", {}
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token != TOKEN:
            raise Reply(401, message="Invalid credentials in Authorization header")
        signed_in = token == TOKEN
        if path == "/api/validate-yaml":
            return self.json(check_card(json.loads(sent)["content"]))
        if path == "/api/repos/create":
            return self.create(json.loads(sent), signed_in)
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.repo("dataset" if match[1] else "model", match[2], signed_in)
            return self.batch(json.loads(sent))
        if match := re.fullmatch(r"/api/(dataset|model)s/([^/]+/[^/]+)(?:/(.*))?", path):
            repo = self.repo(match[1], match[2], signed_in)
            return self.api(repo, match[2], match[3] or "", sent)
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo = self.repo("dataset" if match[1] else "model", match[2], signed_in)
            return self.resolve(repo, match[3], match[4])
        raise Reply(404, message=f"no such page: {path}")

    def json(self, content: Any, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        return 200, json.dumps(content).encode(), {"Content-Type": "application/json", **headers}

    def repo(self, kind: str, name: str, signed_in: bool) -> Repo:
        found = self.hub.repos.get((kind, name))
        if found is None or (found.private and not signed_in):
            raise Reply(404 if signed_in else 401, "RepoNotFound", "Repository not found")
        return found

    def create(self, asked: dict[str, Any], signed_in: bool) -> tuple[int, bytes, dict[str, str]]:
        if not signed_in:
            raise Reply(401, message="Invalid username or password.")
        kind, name = asked.get("type") or "model", f"{asked['organization']}/{asked['name']}"
        if (kind, name) in self.hub.repos:
            raise Reply(409, message="You already created this repo")
        self.hub.seed(kind, name, private=asked.get("visibility") == "private")
        prefix = "datasets/" if kind == "dataset" else ""
        return self.json({"url": f"{self.hub.endpoint}/{prefix}{name}"})

    def batch(self, asked: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        host = self.hub.upload_host or self.hub.endpoint
        objects = []
        for wanted in asked["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                answer["actions"] = {"upload": {"href": f"{host}/upload/{wanted['oid']}"}}
            objects.append(answer)
        return self.json({"transfer": "basic", "objects": objects})

    def api(self, repo: Repo, name: str, rest: str, sent: bytes) -> tuple[int, bytes, dict]:
        verb, _, argument = rest.partition("/")
        revision, _, place = argument.partition("/")
        commit = repo.at(revision or "main")
        if commit is None:
            raise Reply(404, "RevisionNotFound", "Invalid rev id")
        if verb in ("", "revision"):
            return self.json(
                {
                    "id": name,
                    "sha": commit.id,
                    "private": repo.private,
                    "siblings": [{"rfilename": path} for path in commit.files],
                    "tags": [],
                    "lastModified": DATE,
                }
            )
        if verb == "commits":
            listed = [
                {"id": c.id, "title": c.title, "message": c.message, "date": DATE, "authors": []}
                for c in reversed(repo.commits)
            ]
            return self.json(listed)
        if verb == "preupload":
            return self.json({"files": [self.mode(repo, f) for f in json.loads(sent)["files"]]})
        if verb == "commit":
            return self.commit(repo, name, sent)
        if verb == "tree":
            return self.json(tree(commit, place, "recursive=true" in self.path.lower()))
        if verb == "paths-info":
            paths = parse_qs(sent.decode()).get("paths") or json.loads(sent)["paths"]
            every = tree(commit, "", True)
            return self.json([entry for entry in every if entry["path"] in paths])
        raise Reply(404, message=f"no such call: {rest}")

    def mode(self, repo: Repo, file: dict[str, Any]) -> dict[str, Any]:
        path = file["path"]
        data = repo.files.get(path)
        return {
            "path": path,
            "uploadMode": "lfs" if is_lfs(path, file["size"]) else "regular",
            "shouldIgnore": False,
            "oid": etag(path, data) if data is not None else None,
        }

    def commit(self, repo: Repo, name: str, sent: bytes) -> tuple[int, bytes, dict[str, str]]:
        lines = [json.loads(line) for line in sent.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repo.commits[-1].id):
            raise Reply(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repo.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise Reply(400, message=f"{value['path']} was never uploaded")
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        made = repo.add(header["summary"], header["description"], files)
        url = f"{self.hub.endpoint}/{name}/commit/{made.id}"
        return self.json({"commitUrl": url, "commitOid": made.id})

    def resolve(self, repo: Repo, revision: str, path: str) -> tuple[int, bytes, dict[str, str]]:
        commit = repo.at(revision)
        if commit is None:
            raise Reply(404, "RevisionNotFound", "Invalid rev id")
        if path not in commit.files:
            raise Reply(404, "EntryNotFound", "Entry not found")
        data = commit.files[path]
        headers = {"ETag": f'"{etag(path, data)}"', "X-Repo-Commit": commit.id}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            end = int(wanted[2]) + 1 if wanted[2] else len(data)
            part = data[int(wanted[1]) : end]
            span = f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(data)}"
            return 206, part, {**headers, "Content-Range": span}
        return 200, data, headers


def check_card(content: str) -> dict[str, list[dict[str, str]]]:
    """The Hub reads the YAML head; so does this."""
    head = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if head is None or not isinstance(yaml.safe_load(head[1]), dict):
        raise Reply(400, message="no metadata")
    return {"errors": [], "warnings": []}


def tree(commit: Commit, folder: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, data in commit.files.items():
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            if depth == 1 or recursive:
                name = prefix + "/".join(parts[:depth])
                entries[name] = {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        if len(parts) == 1 or recursive:
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data)}
            entry["oid"] = blob_id(data)
            if is_lfs(path, len(data)):
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
            entries[path] = entry
    return list(entries.values())


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that a test cut short are no news."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    server = Server(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":  # a Hub to try the commands against: python -m tests.hub_server
    with running_hub() as hub:
        print(f"export HF_ENDPOINT={hub.endpoint} HF_TOKEN={TOKEN}", flush=True)
        threading.Event().wait()
