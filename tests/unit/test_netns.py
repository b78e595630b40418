"""What `netns` makes of the kernel's tables of sockets."""

import contextlib
import socket
import sys
import threading
import time

import pytest

from _modules import netns

# Taken from a little-endian machine; the column of the inode is the tenth in both.
READS_PROC = pytest.mark.only(sys.platform == "linux")
PROC_NET_TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 20001 1 0 100 0 0 10 0
   1: 00000000:08EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20002 1 0 100 0 0 10 0
   2: 0100007F:08EC 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0        0 20003 1 0 20 4 30 10 -1
"""
PROC_NET_TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 0:0 0 0 0 20004
   1: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 0:0 0 0 0 20005
   2: 000080FE000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 0:0 0 0 0 20006
"""


def test_listeners_of_the_kernels_tables():
    assert netns._listeners(PROC_NET_TCP.splitlines()) == [
        {"address": "127.0.0.1", "port": 5432, "inode": 20001},
        {"address": "0.0.0.0", "port": 2283, "inode": 20002},
    ]
    assert netns._listeners(PROC_NET_TCP6.splitlines()) == [
        {"address": "::", "port": 8080, "inode": 20004},
        {"address": "127.0.0.1", "port": 8081, "inode": 20005},
        {"address": "fe80::1", "port": 8082, "inode": 20006},
    ]


@READS_PROC
@pytest.mark.parametrize(("family", "address"), ((socket.AF_INET, "127.0.0.7"), (socket.AF_INET6, "::1")))
def test_listening_sockets_are_told_by_address(family, address):
    with socket.create_server((address, 0), family=family) as server:
        assert (address, server.getsockname()[1]) in [(each["address"], each["port"]) for each in netns.listening()]


@pytest.mark.parametrize(
    ("part", "pause", "seconds", "reason"),
    ((b"x" * 65536, 0, 60, "larger than 65536 bytes"), (b"x", 0.1, 0.5, "timed out")),
    ids=("endless", "slow"),
)
def test_an_answer_that_does_not_end_is_given_up(part, pause, seconds, reason):
    near, far = socket.socketpair()

    def answer():
        with contextlib.suppress(OSError):
            while True:
                far.sendall(part)
                time.sleep(pause)

    threading.Thread(target=answer, daemon=True).start()
    began = time.monotonic()
    with near, far, pytest.raises(OSError, match=reason):
        netns._received(near, began + seconds)
    assert time.monotonic() - began < 60
