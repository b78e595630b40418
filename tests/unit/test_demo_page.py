"""The page that bin/demo ends with, of recorded rows and attempts. It runs without Salt."""

import base64
import re

from tests.host.page import page, picture

FACTS = [("Immich", "v3.3.1"), ("Debian", "13.2")]
ROWS = [
    {"part": "settings", "result": "ok", "seen": "the pillar is valid", "remedy": ""},
    {
        "part": "Valkey service",
        "result": "failed",
        "seen": "it is <inactive>",
        "remedy": "systemctl start valkey-server",
    },
    {"part": "exposure", "result": "warning", "seen": "nobody has signed up", "remedy": None},
]
ATTEMPTS = [("PostgreSQL: become superuser", True, "permission denied"), ("Valkey: FLUSHALL", False, "OK & done")]
PHOTO = {"picture": picture(8, 5), "path": "/srv/immich/upload/a.png", "counted": "1 photo"}


def cells(text):
    return re.findall(r"<tr><td>(.*)<td class=(\w+)>(\w+)<td>(.*?)(?:</table>|$)", text, re.M)


def test_each_attempt_and_each_row_of_the_doctor_stands_with_its_outcome():
    text = page(FACTS, ROWS, ATTEMPTS, PHOTO)
    assert cells(text) == [
        ("PostgreSQL: become superuser", "denied", "denied", "permission denied"),
        ("Valkey: FLUSHALL", "allowed", "allowed", "OK &amp; done"),
        ("settings", "ok", "ok", "the pillar is valid"),
        ("Valkey service", "failed", "failed", "it is &lt;inactive&gt; → systemctl start valkey-server"),
        ("exposure", "warning", "warning", "nobody has signed up"),
    ]
    assert "container: 1 of 2 denied" in text
    assert "salt-call immich.doctor: 1 of 3 ok" in text
    assert "Immich<b>v3.3.1</b>" in text


def test_the_photo_is_in_the_page_itself():
    (data,) = re.findall(r"src='data:image/png;base64,([^']+)'", page(FACTS, ROWS, ATTEMPTS, PHOTO))
    sent = base64.b64decode(data)
    assert sent == PHOTO["picture"]
    assert sent.startswith(b"\x89PNG\r\n\x1a\n")


def test_with_published_images_nothing_is_tried_from_inside():
    assert "Tried from inside" not in page(FACTS, ROWS, [], None)
