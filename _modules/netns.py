"""
Inspect the network of this host, or of another process, such as a container's.

No process is started: a thread of its own enters the network namespace (setns(2)), asks the name server that the
process itself would ask, and connects from there. What it finds is what the process finds.

Needs Linux, and Salt as root.
"""

import contextlib
import ctypes
import ipaddress
import itertools
import os
import re
import secrets
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import salt.utils.platform
from salt.exceptions import CommandExecutionError, SaltInvocationError

# From sched.h of Linux.
CLONE_NEWNET = 0x40000000
# Kinds of RFC 1035: a host address, the Internet; and the flag of a query for a server that asks others.
DNS_A, DNS_IN, DNS_RECURSION_DESIRED = 1, 1, 0x0100
LARGEST_ANSWER = 65536
# State of a listening socket in proc_pid_net(5), as in the kernel's enum of TCP states.
TCP_LISTEN = "0A"


def __virtual__():
    if not salt.utils.platform.is_linux():
        return False, "netns needs Linux: network namespaces are only there."
    return True


def http_get(pid, url, timeout=5):
    """
    Return the body that a server answers to GET, as text.

    pid
        PID of a process in the network from which to ask.

    url
        As ``http://NAME:PORT/PATH``. IPv4 only.

    timeout
        Seconds for each of name server, connection and the whole answer. Defaults to 5.

    Raises ``CommandExecutionError`` with the step that failed (the name does not resolve, nobody listens, another
    status than 200, an answer that is late or larger than 64 KiB), and ``SaltInvocationError`` if the URL is none.

    CLI Example:

    .. code-block:: bash

        salt-call netns.http_get 4711 http://web:8080/ping
    """
    match = re.fullmatch(r"http://([^/:]+):(\d+)(/.*)", url)
    if not match:
        raise SaltInvocationError(f"{url} is not of the form http://NAME:PORT/PATH")
    host, port, path = match[1], int(match[2]), match[3]
    return _inside(pid, lambda: _get(pid, host, port, path, timeout))


def resolve(pid, name, timeout=5):
    """
    Return the IPv4 addresses of a name, as the name server of a process tells them.

    pid
        PID of a process in the network from which to ask; the name server is that of its ``/etc/resolv.conf``.

    name
        The name.

    timeout
        Seconds. Defaults to 5.

    Raises ``CommandExecutionError`` if the name does not resolve.

    CLI Example:

    .. code-block:: bash

        salt-call netns.resolve 4711 web
    """
    return _inside(pid, lambda: _addresses(pid, name, timeout))


def listening(pid="self"):
    """
    Return the TCP sockets that listen in the network of a process.

    A list of ``{"address": …, "port": …, "inode": …}``, sorted. An IPv4 address is reported as such where an IPv6
    socket is bound to it. The inode is what ``/proc/PID/fd`` of the socket's owner names.

    pid
        PID of a process in that network. Defaults to Salt's own.

    CLI Example:

    .. code-block:: bash

        salt-call netns.listening
    """
    found = []
    for table in ("tcp", "tcp6"):
        # A kernel without IPv6 has but one.
        with contextlib.suppress(FileNotFoundError):
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as lines:
                found += _listeners(lines)
    return sorted(found, key=lambda each: (each["address"], each["port"], each["inode"]))


def without_listener(addresses, port):
    """
    Return those of some IP addresses of this host at which nothing listens, in their order. Connects to none.

    An address that the host got after a server had started is one, unless the server listens at all of its kind.

    addresses
        List of IP addresses.

    port
        TCP port.

    CLI Example:

    .. code-block:: bash

        salt-call netns.without_listener '[192.0.2.10]' 5432
    """
    heard = {ipaddress.ip_address(each["address"]) for each in listening() if each["port"] == int(port)}
    parsed = {address: ipaddress.ip_address(address) for address in addresses}
    # 0.0.0.0 or ::, whichever is of an address's kind.
    return [text for text, address in parsed.items() if not heard & {address, type(address)(0)}]


def _listeners(lines):
    """
    The listening sockets of a table of the kernel's. They come first; the kernel takes milliseconds to find the others.

    Source: Documentation/networking/proc_net_tcp.rst of Linux.
    """
    rows = (line.split() for line in itertools.islice(lines, 1, None))
    listening_rows = itertools.takewhile(lambda row: row[3] == TCP_LISTEN, rows)
    return [{**_socket_address(row[1]), "inode": int(row[9])} for row in listening_rows]


def _socket_address(text):
    address, _, port = text.partition(":")
    # The kernel writes each 32-bit word in the order of the host.
    words = (int(address[start : start + 8], 16) for start in range(0, len(address), 8))
    packed = ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    return {"address": str(getattr(packed, "ipv4_mapped", None) or packed), "port": int(port, 16)}


def _inside(pid, work):
    """What ``work`` returns or raises in a thread that is in the network of a process."""
    outcome = {}

    def run():
        try:
            _enter(pid)
            outcome["value"] = work()
        except (OSError, CommandExecutionError) as error:
            outcome["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise CommandExecutionError(str(outcome["error"])) from outcome["error"]
    return outcome["value"]


def _enter(pid):
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"the network of process {pid} cannot be entered: {os.strerror(number)}")


def _get(pid, host, port, path, timeout):
    address = _addresses(pid, host, timeout)[0]
    request = f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((address, port), timeout) as connection:
            connection.sendall(request.encode())
            answer = _received(connection, time.monotonic() + timeout)
    except OSError as error:
        raise CommandExecutionError(f"{host} ({address}) port {port}: {error}") from error
    head, _, body = answer.decode("utf8", "replace").partition("\r\n\r\n")
    if head.split(" ")[1:2] != ["200"]:
        raise CommandExecutionError(f"{host} port {port} answers {head.splitlines()[:1]}")
    return body


def _received(connection, deadline):
    """All that a peer sends until it hangs up. It may be hostile: bounded in size and time, not only between parts."""
    received = b""
    while len(received) <= LARGEST_ANSWER:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        part = connection.recv(4096)
        if not part:
            return received
        received += part
    raise OSError(f"the answer is larger than {LARGEST_ANSWER} bytes")


def _addresses(pid, name, timeout):
    try:
        return [str(ipaddress.IPv4Address(name))]
    except ValueError:
        pass
    servers, suffixes = _resolver(pid)
    for server in servers:
        for full in (name, *(f"{name}.{suffix}" for suffix in suffixes)):
            found = _ask(server, full, timeout)
            if found:
                return found
    raise CommandExecutionError(f"{name} does not resolve at {', '.join(servers) or 'any name server'}")


def _resolver(pid):
    """Name servers and search suffixes of a process."""
    text = Path(f"/proc/{pid}/root/etc/resolv.conf").read_text(encoding="utf8")
    fields = [line.split() for line in text.splitlines() if line.strip()]
    servers = [field[1] for field in fields if field[0] == "nameserver" and ":" not in field[1]]
    return servers, [suffix for field in fields if field[0] == "search" for suffix in field[1:]]


def _ask(server, name, timeout):
    """Addresses in the answer of a name server, see RFC 1035, section 4."""
    identity = secrets.randbelow(1 << 16)
    labels = b"".join(bytes([len(part)]) + part for part in name.encode("idna").split(b"."))
    query = struct.pack(">6H", identity, DNS_RECURSION_DESIRED, 1, 0, 0, 0) + labels + b"\0"
    query += struct.pack(">2H", DNS_A, DNS_IN)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect((server, 53))
            sock.send(query)
            answer = sock.recv(4096)
        except OSError as error:
            raise CommandExecutionError(f"the name server {server} does not answer: {error}") from error
    try:
        return _parsed(answer, identity)
    except (IndexError, struct.error) as error:
        raise CommandExecutionError(f"the answer of the name server {server} cannot be understood") from error


def _parsed(answer, identity):
    if len(answer) < 12 or struct.unpack_from(">H", answer)[0] != identity:
        return []
    questions, records = struct.unpack_from(">2H", answer, 4)
    position = 12
    for _ in range(questions):
        position = _after_name(answer, position) + 4
    found = []
    for _ in range(records):
        position = _after_name(answer, position)
        kind, _, _, length = struct.unpack_from(">2HIH", answer, position)
        position += 10
        if kind == DNS_A and length == 4:
            found.append(socket.inet_ntoa(answer[position : position + 4]))
        position += length
    return found


def _after_name(answer, position):
    while answer[position]:
        if answer[position] >= 0xC0:  # a pointer to a name told before
            return position + 2
        position += answer[position] + 1
    return position + 1
