"""What Immich's container can write, read with limits: logs as the real server writes them, answers, hostile ones."""

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from immich_io import untrusted

REPO = Path(__file__).resolve().parents[2]

# As in the threads immich-app/immich 18270 (v1.132), arsfeld/nixos 8 (v2.1), immich-app/immich 26003 (v2.5.5), and with
# the colors of Nest's ConsoleLogger.
NEST = (
    "\x1b[{0}m[Nest] 7  - \x1b[39m11/27/2026, 2:36:16 PM \x1b[{0}m{1}\x1b[39m "
    "\x1b[33m[{2}]\x1b[39m \x1b[{0}m{3}\x1b[39m"
)
STORAGE = "Microservices:StorageService"
MARKER = f"""Initializing Immich v2.7.5
Detected CPU Cores: 4
(node:7) ExperimentalWarning: WASI is an experimental feature and might change at any time
Starting api worker
Starting microservices worker
{NEST.format(32, "    LOG", STORAGE, "Verifying system mount folder checks, current state: ...")}
{NEST.format(31, "  ERROR", STORAGE, "Failed to read /data/encoded-video/.immich: Error: ENOENT: no such file")}
microservices worker error: Error: Failed to read "<UPLOAD_LOCATION>/encoded-video/.immich - Please see \
https://docs.immich.app/administration/system-integrity#folder-checks for more information.", stack: Error: Failed
    at StorageService.verifyReadAccess (/usr/src/app/server/dist/services/storage.service.js:84:19)
    at async DefaultConnectionProvider.provideConnection (/usr/src/app/server/node_modules/kysely/dist/cjs/x.js:12:20)
    at async /usr/src/app/server/dist/repositories/database.repository.js:247:13
microservices worker exited with code 1
Killing api process
[Nest] 17  - 11/27/2026, 2:36:17 PM     LOG [Api:EventRepository] Initialized websocket server
"""
MIGRATIONS = """Starting microservices worker
[Nest] 7  - 2026-11-27, 12:31:17 p.m.     LOG [Microservices:DatabaseRepository] Running migrations
[Nest] 7  - 2026-11-27, 12:31:17 p.m.   ERROR [Microservices:DatabaseRepository] Migrations failed: Error: corrupted \
migrations: previously executed migration 1758705774125-CreateAssetOCRTable is missing
Error: corrupted migrations: previously executed migration 1758705774125-CreateAssetOCRTable is missing
    at #ensureNoMissingMigrations (/x/node_modules/kysely/dist/cjs/migration/migrator.js:487:23)
    at #getState (/x/node_modules/kysely/dist/cjs/migration/migrator.js:439:40)
microservices worker exited with code 1
Killing api process
"""
PASSWORD = """Initializing Immich v2.5.5
Detected CPU Cores: 8
/usr/src/app/server/node_modules/.pnpm/postgres@3.4.8/node_modules/postgres/cjs/src/connection.js:817
      errored(Errors.postgres(parseError(x)))
                     ^

PostgresError: password authentication failed for user "postgres"
    at ErrorResponse (/usr/src/app/server/node_modules/postgres/cjs/src/connection.js:817:22)
    at TCP.onStreamRead (node:internal/stream_base_commons:189:23) {
  severity_local: 'FATAL',
  severity: 'FATAL',
  code: '28P01',
  file: 'auth.c',
  line: '343',
  routine: 'auth_failed'
}

Node.js v24.12.0
"""
QUERY = """Query failed : {
  durationMs: 2.305704999998852,
  error: PostgresError: extension "vectors" is not available
      at ErrorResponse (/x/node_modules/postgres/cjs/src/connection.js:790:26) {
    severity: 'ERROR',
"""
JSON = "\n".join(
    json.dumps({"pid": 7, "timestamp": 1, **entry})
    for entry in (
        {"level": "log", "message": "Running migrations", "context": "Microservices:DatabaseRepository"},
        {"level": "error", "message": "Migrations failed: Error: corrupted", "context": "Db", "stack": "x" * 9000},
        {"level": "fatal", "message": "later"},
    )
)
PYTHON = """[11/27/26 04:00:00] INFO     Starting gunicorn 23.0.0
[11/27/26 04:00:00] ERROR    Exception in worker process
                             ╭───── Traceback (most recent call last) ─────╮
                             │ /usr/src/immich_ml/main.py:12 in lifespan    │
                             ╰──────────────────────────────────────────────╯
                             OSError: [Errno 97] Address family not supported by protocol
[11/27/26 04:00:01] INFO     Worker exiting (pid: 9)
"""


@pytest.mark.parametrize(
    ("log", "words"),
    (
        (
            MARKER,
            "[Microservices:StorageService] Failed to read /data/encoded-video/.immich: Error: ENOENT: no such file",
        ),
        (MIGRATIONS, "[Microservices:DatabaseRepository] Migrations failed: Error: corrupted migrations: previously"),
        (PASSWORD, 'PostgresError: password authentication failed for user "postgres"'),
        (QUERY, 'PostgresError: extension "vectors" is not available'),
        (JSON, "[Db] Migrations failed: Error: corrupted"),
        (PYTHON, "OSError: [Errno 97] Address family not supported by protocol"),
        ("x\n[ERROR] Worker (pid:9) was sent SIGKILL! Perhaps out of memory?\n", "[ERROR] Worker (pid:9) was sent"),
        ("Illegal instruction (core dumped)\n", "Illegal instruction (core dumped)"),
        ("one\ntwo\nthree\nfour\n    at x (y:1:2)\n", "two / three / four"),
        ("", ""),
    ),
)
def test_the_reason_is_the_first_error_and_no_stack_frame(log, words):
    assert untrusted.reason(log).startswith(words)
    assert "\x1b" not in untrusted.reason(log)


def test_of_a_server_that_has_served_the_last_error_counts():
    """A thumbnail that could not be made days ago does not end a server."""
    failed = "[Nest] 7  - 11/27/2026, 4:00:00 AM   ERROR [Microservices:MediaService] Unable to run job handler: x\n"
    assert untrusted.reason(failed + PASSWORD, latest=True).startswith("PostgresError: password")
    assert "job handler" in untrusted.reason(failed + PASSWORD)


@pytest.mark.parametrize(
    "log",
    (
        "Error: \x1b]0;title\x07\x1b[2J\x1b[31mred\x9b1mcode\u202eright to left\x00\r\n",
        "Error: " + "x" * 10**6,
        "[Nest] 7  - " + " " * 10**5 + "ERROR x",
        '{"level": "error", "message": ' + "[" * 10**5,
        '{"level": "error", "message": "a\\u001b[2Jb", "context": "\\u0007"}',
        '{"level": ["error"], "message": {}}',
        '{"level": "error"}',
        "\x1b" * 10**5,
        "(" * 10**5 + "\n" + "Error" * 10**5,
    ),
)
def test_a_hostile_log_costs_no_time_and_reaches_no_terminal(log):
    began = time.monotonic()
    found = untrusted.reason(log)
    assert time.monotonic() - began < 20
    assert len(found) <= 400
    assert found.isprintable()


def test_the_output_of_a_program_is_cut_at_size_and_time():
    assert untrusted.output(["sh", "-c", "echo out; echo err >&2"]) == "out\nerr\n"
    began = time.monotonic()
    assert len(untrusted.output(["yes"], size=1000)) == 1000
    assert untrusted.output(["sh", "-c", "echo first; exec sleep 1000"], seconds=3) == "first\n"
    assert time.monotonic() - began < 60


def test_the_tail_of_a_file_is_of_whole_lines_and_of_a_regular_file(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert untrusted.tail(path, 20) == ["line 998", "line 999", ""]
    assert untrusted.tail(path)[0] == "line 0"
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("link", "symbolic"), ("pipe", "not a regular file"), ("absent", "No such file")):
        with pytest.raises(OSError, match=words):
            untrusted.tail(tmp_path / name)


@pytest.fixture
def serving():
    """A server that answers each connection with the bytes it is given, one piece after another, and its URL."""
    servers = []

    def start(*pieces, pause=0.0, family=socket.AF_INET):
        server = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
        servers.append(server)
        threading.Thread(target=answer, args=(server, pieces, pause), daemon=True).start()
        host = "[::1]" if family == socket.AF_INET6 else "127.0.0.1"
        return f"http://{host}:{server.getsockname()[1]}/api/server/ping"

    yield start
    for server in servers:
        server.close()


def answer(server, pieces, pause):
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        except OSError:  # the client has seen enough
            pass


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"


def test_an_answer(serving):
    assert untrusted.get_json(serving(OK + b'{"res":', b'"pong"}')) == {"res": "pong"}


def test_an_answer_over_ipv6(serving):
    try:
        url = serving(OK + b"[1]", family=socket.AF_INET6)
    except OSError:
        url = serving(OK + b"[1]").replace("127.0.0.1", "[::ffff:127.0.0.1]")  # a host without IPv6
    assert untrusted.get_json(url) == [1]


def test_json_of_a_server_error_is_no_answer(serving):
    with pytest.raises(untrusted.StatusError) as failed:
        untrusted.get_json(serving(b'HTTP/1.1 500 Internal Server Error\r\n\r\n{"statusCode":500}'))
    assert failed.value.status == 500


@pytest.mark.parametrize(
    "pieces",
    (
        (OK + b"<html>",),
        (b"SSH-2.0-OpenSSH_9.2\r\n",),
        (b"",),
        (OK + b"[" * 60000,),
        (OK + b"\xff\xfe",),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{}",),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 500 + b"\r\n{}",),
    ),
)
def test_what_is_no_answer(serving, pieces):
    with pytest.raises(ValueError, match="the answer is not HTTP with JSON"):
        untrusted.get_json(serving(*pieces))


def test_an_answer_without_end_is_cut(serving):
    with pytest.raises(ValueError, match="larger than"):
        untrusted.get_json(serving(OK, *[b" " * 65536] * 99))


def test_an_answer_that_drips_costs_the_time_that_was_given(serving):
    began = time.monotonic()
    with pytest.raises(OSError, match=r"no complete answer within 0\.5 s"):
        untrusted.get_json(serving(*[b"H"] * 999, pause=0.1), timeout=0.5)
    assert time.monotonic() - began < 60


WRONG_SETTINGS = """Starting microservices worker
microservices worker error: Error: Invalid system config:\x20
  - [oauth.timeout] Too small: expected number to be >=1
  - [library.scan.cronExpression] Invalid cron expression., stack: Error: Invalid system config:\x20
  - [oauth.timeout] Too small: expected number to be >=1
  - [library.scan.cronExpression] Invalid cron expression.
    at buildConfig (file:///usr/src/app/server/dist/utils/config.js:72:19)
microservices worker exited with code 1
"""


def test_a_reason_names_the_settings_that_are_wrong():
    """As server/src/utils/config.ts of Immich v3.3 throws, and server/src/main.ts prints it."""
    said = (
        "Error: Invalid system config: [oauth.timeout] Too small: expected number to be >=1; "
        "[library.scan.cronExpression] Invalid cron expression."
    )
    assert untrusted.reason(WRONG_SETTINGS) == said
    nest = f"{NEST.format(31, '  ERROR', 'Bootstrap', 'Invalid system config: ')}\n  - [oauth.timeout] Too small\n"
    assert untrusted.reason(nest) == "[Bootstrap] Invalid system config: [oauth.timeout] Too small"
    assert untrusted.reason("Error: of another kind\n  - [not] of it\n") == "Error: of another kind"


def test_of_an_answer_that_is_only_begun_no_more_is_read(serving):
    metrics = b"# HELP target_info Target metadata\n"
    assert untrusted.beginning(serving(OK + metrics), 4096) == metrics
    endless = serving(OK + metrics, *[b" " * 65536] * 99)
    assert untrusted.beginning(endless, 4096).startswith(metrics)
    with pytest.raises(untrusted.StatusError):
        untrusted.beginning(serving(b"HTTP/1.1 404 Not Found\r\n\r\nx"), 4096)
