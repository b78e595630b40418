"""Exit with 0 if the machine learning stand-in answers pong."""

import os
import sys
import urllib.request

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def main():
    address = os.environ.get("IMMICH_HOST", "::").strip("[]")
    host = WILDCARDS.get(address, address)
    host = f"[{host}]" if ":" in host else host
    port = os.environ.get("IMMICH_PORT", "3003")
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/ping", timeout=2) as response:
            return 0 if response.read() == b"pong" else 1
    except OSError as error:
        print(f"Fail: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
