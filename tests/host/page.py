"""The page that the demo ends with: what runs on the host, what was checked, what an intruder was denied."""

import base64
import html
import struct
import zlib

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f4b; --bad: #c62828; --warn: #b26a00; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p.lead { margin: .3rem 0 1.5rem; opacity: .75 }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .75rem }
.facts div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem }
.facts b { display: block; font-size: 1.1rem }
table { border-collapse: collapse; width: 100% }
td { border-top: 1px solid var(--line); padding: .3rem .5rem; vertical-align: top }
td.ok, td.denied { color: var(--good); font-weight: 600 } td.warning { color: var(--warn); font-weight: 600 }
td.failed, td.allowed { color: var(--bad); font-weight: 600 }
figure { margin: 0; display: flex; gap: 1rem; align-items: center; flex-wrap: wrap }
img { border-radius: .5rem; width: 16rem }
code { font-size: .9em }
"""


def picture(width=320, height=200):
    """A PNG: a sun that sets over the sea."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            rows += bytes(_pixel(x / width, y / height, width / height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _pixel(x, y, ratio):
    far = ((x - 0.62) * ratio) ** 2 + (y - 0.48) ** 2
    if y < 0.6:
        if far < 0.016:
            return 255, 236, 170
        glow = max(0, 1 - far * 4)
        return min(255, int(60 + 180 * y + 70 * glow)), int(50 + 120 * y), 110
    wave = 18 if int(y * 90 + x * 7) % 3 == 0 and abs(x - 0.62) < 0.16 else 0
    return 30 + wave * 8, 50 + wave * 5, 95 + wave


def page(facts, rows, attempts, photo):
    """
    The page's HTML.

    facts
        Pairs of a name and what it is, as a version.
    rows
        What ``immich.doctor`` returns.
    attempts
        Triples: what was tried from inside Immich's container, whether it was denied, and the answer.
    photo
        ``{"picture": bytes, "path": on the host's disk, "counted": by the server}``, or ``None``.
    """
    denied = sum(was_denied for _, was_denied, _ in attempts)
    good = sum(row["result"] == "ok" for row in rows)
    parts = [f"<div>{_text(name)}<b>{_text(value)}</b></div>" for name, value in facts]
    body = [
        "<h1>Immich, deployed by immich-formula</h1>",
        "<p class=lead>A disposable Debian host on this machine. All below was asked of it after the second apply.</p>",
        f"<div class=facts>{''.join(parts)}</div>",
    ]
    if photo:
        data = base64.b64encode(photo["picture"]).decode()
        caption = (
            "Signed up, logged in, sent through the API as a phone does.<br>Unchanged on the disk: "
            f"<code>{_text(photo['path'])}</code><br>The server counts: {_text(photo['counted'])}"
        )
        body += [
            "<h2>A photo was uploaded</h2>",
            f"<figure><img alt='a sunset' src='data:image/png;base64,{data}'>",
            f"<figcaption>{caption}</figcaption></figure>",
        ]
    if attempts:
        body += [f"<h2>Tried from inside Immich's container: {denied} of {len(attempts)} denied</h2>"]
        body += [_table((what, "denied" if no else "allowed", answer) for what, no, answer in attempts)]
    body += [f"<h2>salt-call immich.doctor: {good} of {len(rows)} ok</h2>"]
    body += [
        _table((row["part"], row["result"], " → ".join(filter(None, (row["seen"], row["remedy"])))) for row in rows)
    ]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>immich-formula: the demo</title><style>{STYLE}</style>\n" + "\n".join(body)
    )


def _table(rows):
    lines = (f"<tr><td>{_text(a)}<td class={_text(b)}>{_text(b)}<td>{_text(c)}" for a, b, c in rows)
    return "<table>" + "\n".join(lines) + "</table>"


def _text(value):
    return html.escape(str(value))
