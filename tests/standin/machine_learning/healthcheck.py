"""Exit with 0 if the machine learning stand-in answers pong."""

import os
import socket
import sys

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def main():
    address = os.environ.get("IMMICH_HOST", "::").strip("[]")
    host = WILDCARDS.get(address, address)
    port = int(os.environ.get("IMMICH_PORT", "3003"))
    try:
        # Not with urllib, which takes longer to load than the rest of this: a container's health is looked at often.
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
            status, _, answer = connection.makefile("rb").read().partition(b"\r\n")
    except OSError as error:
        print(f"Fail: {error}", file=sys.stderr)
        return 1
    return 0 if b" 200 " in status and answer.endswith(b"\r\n\r\npong") else 1


if __name__ == "__main__":
    sys.exit(main())
