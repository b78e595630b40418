"""
Password verifiers, as PostgreSQL stores them: SCRAM-SHA-256 and md5
====================================================================
"""

import base64
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata

SCRAM_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]{44}):([A-Za-z0-9+/=]{44})")
MD5_VERIFIER = re.compile(r"md5[0-9a-f]{32}")
# What servers before PostgreSQL 16 use, which have no setting for it.
ITERATIONS = 4096


def matches(password, verifier, role):
    """
    Return whether a stored verifier is that of a password.

    password
        In clear. One that has the form of a verifier is taken as one, as PostgreSQL itself does.

    verifier
        What PostgreSQL stores: SCRAM-SHA-256 with any number of iterations, or md5.

    role
        Name of the role, which an md5 verifier is salted with.
    """
    if is_verifier(password):
        return hmac.compare_digest(password.encode(), verifier.encode())
    if MD5_VERIFIER.fullmatch(verifier):
        # What PostgreSQL defined long ago, not a choice made here.
        md5 = hashlib.md5((password + role).encode(), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(f"md5{md5}", verifier)
    match = SCRAM_VERIFIER.fullmatch(verifier)
    if not match:
        return False
    try:
        salt = base64.b64decode(match[2], validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(scram(password, salt, int(match[1])), verifier)


def is_verifier(password):
    """Return whether PostgreSQL would take a text as a verifier and not as a password."""
    return bool(SCRAM_VERIFIER.fullmatch(password) or MD5_VERIFIER.fullmatch(password))


def kind(verifier):
    """Return ``scram-sha-256`` or ``md5``, or nothing where there is no verifier."""
    if verifier is None:
        return None
    return "md5" if MD5_VERIFIER.fullmatch(verifier) else "scram-sha-256"


def new(password, iterations=ITERATIONS):
    """Return a SCRAM-SHA-256 verifier of a password, with a salt of its own."""
    return scram(password, secrets.token_bytes(16), iterations)


def scram(password, salt, iterations):
    """Return a verifier by RFC 5803, as PostgreSQL stores it: src/common/scram-common.c, scram_build_secret()."""
    salted = hashlib.pbkdf2_hmac("sha256", _saslprep(password).encode(), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return "SCRAM-SHA-256${}:{}${}:{}".format(iterations, *parts)


def _saslprep(password):
    """
    Prepare a password as PostgreSQL does, src/common/saslprep.c: ASCII stays, and so does what SASLprep forbids.
    """
    if password.isascii():
        return password
    mapped = [" " if stringprep.in_table_c12(char) else char for char in password]
    mapped = [char for char in mapped if not stringprep.in_table_b1(char)]
    if not mapped or any(_is_prohibited(char) for char in mapped) or not _has_valid_direction(mapped):
        return password
    return unicodedata.normalize("NFKC", "".join(mapped))


def _is_prohibited(char):
    tables = (
        stringprep.in_table_a1,
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    return any(table(char) for table in tables)


def _has_valid_direction(chars):
    if not any(stringprep.in_table_d1(char) for char in chars):
        return True
    if any(stringprep.in_table_d2(char) for char in chars):
        return False
    return stringprep.in_table_d1(chars[0]) and stringprep.in_table_d1(chars[-1])
