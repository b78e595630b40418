"""
Reading what others can write
=============================

Immich's containers and its role in PostgreSQL decide what stands in answers, logs and names that this host reads as
root. So each is read with a limit for its size and a deadline for all of it, and shown without what a terminal would
act on. Needs nothing but Python and ``host_core``: the programs on the host use this file too.
"""

import http.client
import io
import json
import os
import re
import socket
import stat
import time
import urllib.parse

from host_core import command, terminal

LARGEST_ANSWER = 65536
LARGEST_OUTPUT = 1024**2
REASON_LENGTH = 400
# What Immich's server logs: ConsoleLogger of NestJS 11, `[Nest] 7  - 11/27/2026, 4:09:25 AM   ERROR [Context] message`,
# and Immich's server/src/main.ts, `microservices worker error: Error: message, stack: …`.
NEST_ERROR = re.compile(r"\[[^\]]{1,40}\] \d+ +- .{0,60}? (?:ERROR|FATAL) (?P<text>.+)")
WORKER_ERROR = re.compile(r"\w+ worker error: (?P<text>.+?)(?:, stack: .*)?$")
# An exception that ended Node.js or Python.
EXCEPTION = re.compile(r"(?:\w+:? )?(?P<text>[A-Za-z_.]*(?:Error|Exception): .+)")
# server/src/utils/config.ts of Immich v3.3: `Invalid system config: `, and lines such as `  - [oauth.timeout] message`.
LIST_ITEM = re.compile(r" {2}- (?P<text>\[[^\]]{1,200}\] .+?)(?P<stack>, stack: .*)?$")
LOUD = re.compile(r"\b(?:ERROR|FATAL|CRITICAL)\b|Illegal instruction|Killed")
# Lines around an error that say nothing of it: stack frames, properties, the source line, the processes it has ended.
NOISE = re.compile(
    r"at .+|Node\.js v\S+|\w+ worker exited with code \d+|Killing \w+ process|[\W_]*|/\S+:\d+"
    r"|\w+: (?:'.*'|\d+|undefined),?"
)


# -- logs ----------------------------------------


def output(words, size=LARGEST_OUTPUT, seconds=10):
    """
    Return what a command prints, until it ends, ``size`` bytes are there or the time is up. Then it is killed.

    words
        The command, a list of words.
    size
        Bytes at most. Defaults to 1 MiB.
    seconds
        Defaults to 10.

    .. code-block:: python

        untrusted.output(["podman", "logs", "immich-server"])
    """
    return command.read(words, seconds, size, merged=True).stdout


def tail(path, size=LARGEST_OUTPUT // 4):
    """
    Return the last whole lines of a regular file.

    path
        The file. A symbolic link is not followed.
    size
        Bytes at most. Defaults to 256 KiB.

    Raises ``OSError`` if it cannot be read.

    .. code-block:: python

        untrusted.tail("/var/log/postgresql/postgresql-17-main.log")
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        held = os.fstat(file.fileno())
        if not stat.S_ISREG(held.st_mode):
            raise OSError(f"{path} is not a regular file")
        file.seek(max(0, held.st_size - size))
        lines = file.read(size).decode(errors="replace").split("\n")
    return lines[1:] if held.st_size > size else lines


def reason(log, latest=False):
    """
    Return the error in a container's log that says why it ended, as one printable line of at most 400 characters.

    log
        What the container has logged since its last start.
    latest
        Whether the last error is the one that counts, and not the first. The first is the cause, and what follows
        comes from it; but of a container that has served before, earlier errors are about single requests. Defaults to
        ``False``.

    A log without any error is quoted by its last lines.

    .. code-block:: python

        untrusted.reason(log)
    """
    lines = _with_lists([line for line in log.split("\n") if line.strip()])
    for find in (_clear_error, _loud_line):
        errors = [error for error in map(find, lines) if error]
        if errors:
            return errors[-1 if latest else 0][:REASON_LENGTH]
    lines = [terminal.one_line(line) for line in lines]
    telling = [line for line in lines if line and not NOISE.fullmatch(line)] or lines
    return " / ".join(telling[-3:])[-REASON_LENGTH:]


def _with_lists(lines):
    """The lines, with those of a list behind the error that it belongs to: Immich names each setting that is wrong."""
    found, open_list = [], False
    for line in lines:
        item = LIST_ITEM.match(line)
        if item and open_list:
            found[-1][1].append(item["text"])
            open_list = not item["stack"]  # which repeats it all
        else:
            found.append((line, []))
            open_list = terminal.one_line(line).endswith(":")
    return [f"{line.rstrip()} {'; '.join(items)}" if items else line for line, items in found]


def _clear_error(line):
    if line.startswith("{"):
        return _json_error(line)
    line = terminal.one_line(line)
    found = NEST_ERROR.match(line) or WORKER_ERROR.match(line) or EXCEPTION.match(line)
    return found and found["text"]


def _loud_line(line):
    line = terminal.one_line(line)
    return line if LOUD.search(line) and not NOISE.fullmatch(line) else None


def _json_error(line):
    """The message of an error as the server logs it with IMMICH_LOG_FORMAT=json."""
    try:
        entry = json.loads(line)
        if entry["level"] not in ("error", "fatal"):
            return None
        context = f"[{entry['context']}] " if entry.get("context") else ""
        return terminal.one_line(f"{context}{entry['message']}")
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


# -- HTTP ----------------------------------------


class StatusError(ValueError):
    """An answer with another status than 200, which is in ``status``."""

    def __init__(self, status):
        super().__init__(f"the answer has the status {status}")
        self.status = status


class _Received:
    """What http.client parses in place of a socket."""

    def __init__(self, data):
        self.data = data

    def makefile(self, *_args, **_kwargs):
        return io.BytesIO(self.data)


def get_json(url, timeout=10):
    """
    Return what an address answers to GET, parsed.

    url
        As ``http://HOST:PORT/PATH``; an IPv6 address in brackets.
    timeout
        Seconds for all of it. Defaults to 10.

    Raises ``OSError`` if there is no answer in time, ``StatusError`` for another status than 200, and ``ValueError``
    if the answer is larger than 64 KiB, no HTTP or no JSON.

    .. code-block:: python

        untrusted.get_json("http://127.0.0.1:2283/api/server/ping")
    """
    response = _response("GET", url, {}, b"", timeout, LARGEST_ANSWER)
    if response.status != 200:
        raise StatusError(response.status)
    return _parsed(_content(response))


def beginning(url, size, timeout=10):
    """
    Return the first bytes of what an address answers to GET; of the rest nothing is read.

    url
        As of :py:func:`get_json`.
    size
        How many of them, with the headers.
    timeout
        Seconds for these. Defaults to 10.

    Raises ``OSError`` if there is no answer in time, ``StatusError`` for another status than 200, and ``ValueError`` if
    the answer is no HTTP.

    .. code-block:: python

        untrusted.beginning("http://127.0.0.1:8081/metrics", 4096)
    """
    response = _response("GET", url, {}, b"", timeout, size, whole=False)
    if response.status != 200:
        raise StatusError(response.status)
    return response.fp.read(size)


def request_json(method, url, body=None, headers=None, timeout=10, size=LARGEST_ANSWER):
    """
    Return the status of an answer, and what it holds, parsed; ``None`` if it holds nothing.

    method
        Method of HTTP, as ``POST``.
    url
        As of :py:func:`get_json`.
    body
        What to send as JSON. Defaults to nothing.
    headers
        Headers by name. Defaults to none.
    timeout
        Seconds for all of it. Defaults to 10.
    size
        Bytes of the answer at most. Defaults to 64 KiB.

    Raises ``OSError`` if there is no answer in time, and ``ValueError`` if the answer is larger, no HTTP or no JSON.

    .. code-block:: python

        untrusted.request_json("POST", "http://127.0.0.1:2283/api/auth/login", {"email": email, "password": password})
    """
    headers, content = dict(headers or {}), b""
    if body is not None:
        content = json.dumps(body).encode()
        headers.update({"Content-Type": "application/json", "Content-Length": str(len(content))})
    response = _response(method, url, headers, content, timeout, size)
    read = _content(response)
    return response.status, _parsed(read) if read else None


def _parsed(read):
    try:
        return json.loads(read)
    except (ValueError, RecursionError) as error:
        raise _not_json(error) from error


def _not_json(error):
    return ValueError(f"the answer is not HTTP with JSON ({type(error).__name__})")


def _content(response):
    try:
        return response.read()
    except (http.client.HTTPException, ValueError) as error:
        raise _not_json(error) from error


def _response(method, url, headers, content, timeout, size, whole=True):
    """An answer whose status is known, and whose content has come in."""
    parts = urllib.parse.urlsplit(url)
    lines = [f"{method} {parts.path or '/'}{'?' if parts.query else ''}{parts.query} HTTP/1.0", f"Host: {parts.netloc}"]
    lines += ["Connection: close", *(f"{name}: {value}" for name, value in headers.items())]
    request = "".join(f"{line}\r\n" for line in (*lines, "")).encode() + content
    response = http.client.HTTPResponse(_Received(_exchange(parts, request, timeout, size, whole)), method=method)
    try:
        response.begin()
        return response
    except (http.client.HTTPException, ValueError) as error:
        raise _not_json(error) from error


def _exchange(url, request, timeout, size, whole):
    """All bytes that a server sends until it hangs up. HTTP/1.0, so that it does, and sends no chunks."""
    deadline = time.monotonic() + timeout
    received = b""
    with socket.create_connection((url.hostname, url.port or 80), timeout) as connection:
        connection.sendall(request)
        while len(received) <= size:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                chunk = connection.recv(LARGEST_ANSWER)
            except socket.timeout as error:
                raise TimeoutError(f"no complete answer within {timeout} s") from error
            if not chunk:
                return received
            received += chunk
    if not whole:
        return received[:size]
    raise ValueError(f"the answer is larger than {size} bytes")
