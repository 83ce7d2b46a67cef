"""`python -m benchmarks.annotation.label_studio`: the same loop on Label Studio, beside ours.

Label Studio gets an environment of its own in var/bench/label-studio (a download of some hundred
MB, once) and is started with its defaults: `label-studio start`, SQLite, on 127.0.0.1. The same
pairs are imported with three annotations wanted of each, and 1, 8 and 32 annotators who have signed
up ask for the next task and submit a choice, each crowd for a minute in a project of its own.
Rows go to var/bench/label-studio.json as they finish. Its SQL is not counted here.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.annotation.crowd import Tally, percentile
from benchmarks.annotation.pairs import ROOT, unanswered_pairs
from benchmarks.annotation.server import answers, cpu_s, memory_mb, tree

FOLDER = ROOT / "var" / "bench" / "label-studio"
OUT = ROOT / "var" / "bench" / "label-studio.json"
VERSION = "1.23.0"
PORT = 8766
CROWDS = (1, 8, 32)
#: Seconds each crowd works, and the start may take.
CROWD_S = 60
START_S = 300
OVERLAP = 3
PASSWORD = "correct horse battery"  # noqa: S105 - of a server that lives for minutes
ADMIN = "admin@example.org"
SCREEN = """<View><Text name="prompt" value="$prompt"/><Pairwise name="better" toName="left,right"/>
<Text name="left" value="$left"/><Text name="right" value="$right"/></View>"""
CHOICE = {
    "from_name": "better", "to_name": "left", "type": "pairwise", "value": {"selected": "left"},
}  # fmt: skip


@dataclass
class Account:
    """One person who is signed in."""

    cookies: dict[str, str]

    def headers(self) -> dict[str, str]:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        token = self.cookies.get("csrftoken", "")
        origin = f"http://127.0.0.1:{PORT}"
        return {
            "Cookie": cookie, "X-CSRFToken": token, "Referer": origin + "/",
            "Content-Type": "application/json",
        }  # fmt: skip


class Caller:
    """One annotator's connection, kept open while Label Studio keeps it."""

    def __init__(self, account: Account) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
        self._headers = account.headers()

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any, float]:
        """(status, the reply's JSON or text, seconds)."""
        started = time.perf_counter()
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, self._headers)
        reply = self._connection.getresponse()
        raw = reply.read()
        took = time.perf_counter() - started
        try:
            return reply.status, json.loads(raw) if raw else None, took
        except ValueError:
            return reply.status, raw[:300].decode(errors="replace"), took


def installed() -> Path:
    """Label Studio's own command, installed at the first call."""
    command = FOLDER / "venv" / "bin" / "label-studio"
    if not command.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER / "venv")], check=True)
        pip = [str(FOLDER / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, f"label-studio=={VERSION}"], check=True)
    return command


@contextmanager
def label_studio(folder: Path) -> Iterator[psutil.Process]:
    """Started with its defaults and an admin, ready to answer; ended afterwards."""
    command = [
        str(installed()), "start", "--no-browser", "--data-dir", str(folder),
        "--internal-host", "127.0.0.1", "--port", str(PORT),
        "--username", ADMIN, "--password", PASSWORD,
    ]  # fmt: skip
    quiet = {"COLLECT_ANALYTICS": "0", "LATEST_VERSION_CHECK": "0", "SENTRY_RATE": "0"}
    others = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "DATA_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in others}
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment | quiet, cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + START_S
        while not answers(PORT, "/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: Label Studio did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield psutil.Process(process.pid)
    finally:
        running = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        _, alive = psutil.wait_procs([*running, psutil.Process(process.pid)], timeout=20)
        for left in alive:
            left.kill()


def signed_in(email: str, *, new: bool) -> Account:
    """Somebody who has signed up, or signed in, through the form."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    url = f"http://127.0.0.1:{PORT}/user/{'signup' if new else 'login'}/"
    opener.open(url, timeout=60).read()
    token = next((cookie.value or "" for cookie in jar if cookie.name == "csrftoken"), "")
    form = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": token}
    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode(), {"Referer": url})
    opener.open(request, timeout=60).read()
    cookies = {cookie.name: cookie.value or "" for cookie in jar}
    if "sessionid" not in cookies:
        sys.exit(f"bench: {email} could not sign in to Label Studio")
    return Account(cookies)


def project_of(admin: Caller, crowd: int) -> int:
    """A project with the pairs, three annotations wanted of each."""
    settings = {
        "title": f"crowd {crowd}", "label_config": SCREEN, "maximum_annotations": OVERLAP,
    }  # fmt: skip
    status, project, _ = admin.send("POST", "/api/projects/", settings)
    if status != 201:
        sys.exit(f"bench: no project: {status} {project}")
    tasks = [
        {
            "prompt": "\n\n".join(f"{said['role']}: {said['content']}" for said in record.messages),
            "left": record.first,
            "right": record.second,
        }
        for record in unanswered_pairs()
    ]
    status, reply, _ = admin.send("POST", f"/api/projects/{project['id']}/import", tasks)
    if status != 201:
        sys.exit(f"bench: no import: {status} {reply}")
    return int(project["id"])


def judge(project: int, accounts: list[Account]) -> Tally:
    """All at once, next and submit in turn, until the time is over or nothing is left."""
    tally, lock = Tally(), threading.Lock()
    barrier = threading.Barrier(len(accounts) + 1)
    ends = 0.0

    def one(account: Account) -> None:
        caller, mine = Caller(account), Tally()
        barrier.wait()
        try:
            while time.monotonic() < ends:
                status, task, took = caller.send("GET", f"/api/projects/{project}/next")
                if status == 404:
                    break
                if status != 200:
                    mine.errors.append(f"next: {status} {task}")
                    continue
                mine.next_s.append(took)
                body = {"result": [CHOICE], "lead_time": 1.0}
                status, said, took = caller.send(
                    "POST", f"/api/tasks/{task['id']}/annotations", body
                )
                if status == 201:
                    mine.submit_s.append(took)
                    mine.keys.append(str(said["id"]))
                else:
                    mine.errors.append(f"submit: {status} {said}")
        except Exception as error:
            mine.errors.append(repr(error))
        with lock:
            tally.add(mine)

    threads = [threading.Thread(target=one, args=(account,)) for account in accounts]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + CROWD_S
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    tally.seconds = time.perf_counter() - started
    return tally


def over_served(folder: Path, project: int) -> int:
    """Tasks with more annotations than were wanted, by its own database."""
    with sqlite3.connect(folder / "label_studio.sqlite3") as connection:
        return int(
            connection.execute(
                "SELECT COUNT(*) FROM (SELECT task_id FROM task_completion WHERE project_id = ?"
                " GROUP BY task_id HAVING COUNT(*) > ?)",
                (project, OVERLAP),
            ).fetchone()[0]
        )


def crowds(folder: Path) -> Iterator[dict[str, Any]]:
    with label_studio(folder) as server:
        admin = Caller(signed_in(ADMIN, new=False))
        people = [signed_in(f"crowd-{n}@example.org", new=True) for n in range(max(CROWDS))]
        for crowd in CROWDS:
            project = project_of(admin, crowd)
            before = sum(map(cpu_s, tree(server)))
            tally = judge(project, people[:crowd])
            count = max(1, len(tally.keys))
            yield {
                "annotators": crowd,
                "judgments": len(tally.keys),
                "judgments/s": len(tally.keys) / tally.seconds,
                "next p50": percentile(tally.next_s, 50),
                "next p95": percentile(tally.next_s, 95),
                "submit p50": percentile(tally.submit_s, 50),
                "submit p95": percentile(tally.submit_s, 95),
                "server CPU ms": 1000 * (sum(map(cpu_s, tree(server))) - before) / count,
                "PSS MB": memory_mb(server),
                "errors": len(tally.errors),
                "first error": (tally.errors or [""])[0][:200],
                "over-served": over_served(folder, project),
            }


def main() -> int:
    report: dict[str, Any] = {"label studio": VERSION, "database": "SQLite", "crowds": []}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    name = tempfile.mkdtemp(prefix="label-studio-")
    try:
        for row in crowds(Path(name)):
            report["crowds"].append(row)
            print(json.dumps(row), flush=True)
            OUT.write_text(json.dumps(report, indent=1) + "\n")
    finally:
        shutil.rmtree(name, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
