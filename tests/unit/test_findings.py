"""Findings in words: the one place that makes sentences of them."""

import pytest

from immich_core import findings
from immich_diagnosis import check

ABSENT = findings.finding("x", "database", "PostgreSQL has no role immich.", findings.apply("immich.postgres"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    (
        ({}, "PostgreSQL has no role immich. Next step: salt-call state.apply immich.postgres"),
        ({"remedy": ""}, "PostgreSQL has no role immich."),
        ({"path": "immich:port", "seen": "2283 is taken", "remedy": ""}, "immich:port: 2283 is taken"),
        (
            {"path": "immich:port", "seen": "2283 is taken", "remedy": "stop that"},
            "immich:port: 2283 is taken. Next step: stop that",
        ),
    ),
)
def test_a_finding_as_a_sentence(changes, sentence):
    assert findings.sentence({**ABSENT, **changes}) == sentence


@pytest.mark.parametrize(
    ("severity", "result"), ((findings.ERROR, "failed"), (findings.WARNING, "warning"), (findings.NOTE, "ok"))
)
def test_a_finding_as_a_row_of_the_doctor(severity, result):
    assert check.of_finding({**ABSENT, "severity": severity, "path": "immich:postgres"}) == (
        result,
        "immich:postgres: PostgreSQL has no role immich.",
        "salt-call state.apply immich.postgres",
        "x",
    )
