"""What immich-stack reports of itself, and what is read of that."""

import pytest

from immich_core import stack_status

URL = "http://127.0.0.1:2283/api/server/ping"
SERVER, LEARNING = "immich-server", "immich-machine-learning"
ONCE = (stack_status.EXITED, "1 time(s) in a row, last with code 1: immich-server exited, Serving: x; y")


@pytest.mark.parametrize(
    ("troubles", "begin", "serving", "exited"),
    (
        ({}, f"Serving: {URL}", True, set()),
        ({LEARNING: ONCE}, f"{LEARNING} exited: 1 time(s) in a row", False, {LEARNING}),
        (
            {SERVER: (stack_status.STOPPED, "by hand"), LEARNING: ONCE},
            f"{LEARNING} exited, {SERVER} stopped: {LEARNING}: 1 time(s)",
            False,
            {LEARNING},
        ),
        ({SERVER: (stack_status.REMOVED, "by hand")}, f"{SERVER} removed: by hand", False, set()),
    ),
)
def test_what_was_reported_is_read_whatever_a_container_says(troubles, begin, serving, exited):
    text = stack_status.text(URL, troubles)
    assert text.startswith(begin)
    assert stack_status.read(text) == (serving, exited)


@pytest.mark.parametrize(
    "text",
    (
        "",
        "Starting the containers",
        f"Waiting until {URL} answers. {stack_status.text(URL, {SERVER: ONCE})}",
        f"{SERVER} exited 3 time(s) in a row, last with code 1: Error: x",
        f"{SERVER}: exited 1 time(s) in a row, last with code 1: x",  # of an earlier release that still runs
    ),
)
def test_what_is_no_report_of_a_stack_that_serves(text):
    assert stack_status.read(text) == (False, set())
