"""local/sync_wandb.sh, with wandb's own client and runs, against a small server that answers as W&B's does."""

import fcntl
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

KEY = "0123456789" * 4
WRITE = """
import os, sys, time, wandb
settings = wandb.Settings(mode="offline", console="off", silent=True, x_transaction_log_flush_interval=0.2)
out, key, first, last, ends = sys.argv[1:]
run = wandb.init(project="p", dir=out, id=key, resume="allow", settings=settings)
for step in range(int(first), int(last)):
    run.log({"trainer/global_step": step})
if ends == "killed":
    time.sleep(1)
    os._exit(9)
run.finish()
"""


class Server(BaseHTTPRequestHandler):
    """Keeps the history of each run in `server.lines`, and refuses the runs in `server.refused`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        status, answer = 200, {}
        if self.path.endswith("graphql"):
            asked = json.loads(body)
            variables = asked["variables"]
            self.server.asked.append(variables.get("name"))
            status = 403 if variables.get("name") in self.server.refused else 200
            answer = {"data": self.graphql(asked.get("operationName"), variables)}
        elif self.path.endswith("file_stream"):
            history = json.loads(body).get("files", {}).get("wandb-history.jsonl", {"content": []})
            lines = self.server.lines[self.path.split("/")[4]]
            assert not history["content"] or history["offset"] == len(lines), "a line is overwritten, or one is missing"
            lines += map(json.loads, history["content"])
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST

    def graphql(self, operation: str, asked: dict) -> dict:
        """The answers that `wandb sync` needs."""
        name = asked.get("name")
        entity = {"id": "e", "name": "e"}
        project = {"id": "p", "name": "p", "entity": entity}
        lines = self.server.lines.get(name)
        there = {"id": "b", "name": name, "displayName": "d", "config": "{}", "historyLineCount": len(lines or [])}
        if operation == "RunResumeStatus":
            tails = {"historyTail": json.dumps([json.dumps(line) for line in (lines or [])[-1:]]), "eventsTail": "[]"}
            there |= tails | {
                "summaryMetrics": "{}",
                "logLineCount": 0,
                "eventsLineCount": 0,
                "wandbConfig": '{"t": 1}',
            }
            return {"model": project | {"bucket": there if lines else None}}
        if operation == "UpsertBucket":
            return {"upsertBucket": {"bucket": there | {"project": project}, "inserted": lines is None}}
        if operation == "CreateRunFiles":
            urls = [{"name": n, "uploadUrl": f"{self.server.url}/storage/{n}"} for n in asked["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": urls}}
        return {}

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as found:
        found.daemon_threads = True
        found.url = f"http://127.0.0.1:{found.server_port}"
        found.lines, found.refused, found.asked = defaultdict(list), set(), []
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Two trainings' runs; the first was killed, went on, and was killed again before it wrote a thing."""
    folder = tmp_path_factory.mktemp("written")
    for out, key, *rest in (
        ("none-1", "killed01", "0", "3", "killed"),
        ("none-1", "killed01", "3", "5", "ends"),
        ("none-2.partial", "whole002", "0", "4", "ends"),
    ):
        (folder / out).mkdir(exist_ok=True)
        command = [sys.executable, "-c", WRITE, str(folder / out), key, *rest]
        done = subprocess.run(command, env=environment(), check=False)
        assert done.returncode == (9 if "killed" in rest else 0)
    first = min((folder / "none-1/wandb").glob("offline-run-*"))
    nothing = first.with_name("offline-run-20000101_000000-killed01") / "run-killed01.wandb"
    nothing.parent.mkdir()
    nothing.write_bytes((first / "run-killed01.wandb").read_bytes()[:7])
    return folder


@pytest.fixture
def clone(written, tmp_path) -> Path:
    """A repository in whose exp/ those runs lie."""
    for name in ("path.sh", "requirements.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "local").symlink_to(REPOSITORY / "local")
    shutil.copytree(written, tmp_path / "exp/espeak/labels-all-0", symlinks=True)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    python = {"VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    return kept | python | {"NETRC": "/nonexistent"} | more


def sync(clone: Path, server=None, status: int = 0, **more: str) -> str:
    """What the script prints, a line."""
    more |= {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url} if server else {}
    done = subprocess.run(
        ["./local/sync_wandb.sh"], cwd=clone, env=environment(**more), capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == status and len(output.splitlines()) == 1, output
    return output


def steps(server) -> dict[str, list[int]]:
    return {run: [line["trainer/global_step"] for line in lines] for run, lines in server.lines.items()}


def test_what_is_new_is_uploaded_once_and_a_run_in_two_folders_is_one_run_in_order(clone, server):
    assert sync(clone, server) == "W&B: uploaded 3 folders of runs\n"
    assert steps(server) == {"killed01": [0, 1, 2, 3, 4], "whole002": [0, 1, 2, 3]}
    asked = len(server.asked)
    assert sync(clone, server) == "W&B: nothing new to upload\n"
    assert len(server.asked) == asked
    assert KEY not in "".join(path.read_text() for path in clone.glob("exp/log/*.log"))


def test_a_run_that_is_refused_is_said_in_one_line_and_uploaded_the_next_time(clone, server):
    server.refused.add("killed01")
    output = sync(clone, server, status=1)
    assert output.startswith("error: 2 of 3 folders of runs were not uploaded (") and "403" in output
    assert steps(server) == {"whole002": [0, 1, 2, 3]}
    server.refused.clear()
    assert sync(clone, server) == "W&B: uploaded 2 folders of runs\n"
    assert steps(server) == {"killed01": [0, 1, 2, 3, 4], "whole002": [0, 1, 2, 3]}


def test_a_run_that_is_being_written_waits_for_the_next_time(clone, server):
    with open(clone / "exp/espeak/labels-all-0/.none-2.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        output = sync(clone, server)
    assert output == "W&B: uploaded 2 folders of runs; 1 are being written, and wait for the next time\n"
    assert list(steps(server)) == ["killed01"]
    assert sync(clone, server) == "W&B: uploaded 1 folders of runs\n"


def test_without_a_key_or_a_server_one_line_says_so_at_once(clone, server):
    assert sync(clone, status=1).startswith("error: no W&B key; set WANDB_API_KEY, or: wandb login; 3 folders")
    server.url = "http://127.0.0.1:9"
    assert "http://127.0.0.1:9: " in sync(clone, server, status=1)
