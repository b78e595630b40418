"""
Immich's administrator, and the formula's own API key
======================================================

With these the states ``immich_user`` and ``immich_library`` authenticate. Each speaks to Immich's API at ``url``.
"""

import contextlib
import os

from salt.exceptions import CommandExecutionError

from host_core import pillar
from immich_core import units
from immich_host import administrator, api_key, gateway
from immich_io import api

__virtualname__ = "immich_account"

FAILURES = (api.ApiError, CommandExecutionError, OSError)
RULES = {"source": "salt://immich/gateway/files/immich-gateway.nft.j2", "template": "jinja", "mode": "0644"}


def __virtual__():
    if "immich_account.plan" not in __salt__:
        return False, "The execution module immich_account is missing: run saltutil.sync_all"
    return __virtualname__


def administrator_present(name, full_name, password_pillar, url="http://127.0.0.1:2283", postgres=None):
    """
    Make sure that somebody has signed up as administrator: the declared one, if nobody has.

    An administrator who is there already stays as they are, whoever it is.

    name
        The administrator's e-mail address.

    full_name
        The administrator's name.

    password_pillar
        Pillar path of the initial password, as in ``immich:admin:password``.

    url
        The server's address, without a path. Defaults to ``http://127.0.0.1:2283``.

    postgres
        ``user``, ``database`` and ``connection`` of Immich's database, as of the formula's settings. It is asked where
        the server does not say whether somebody has signed up, which later releases mean not to. Defaults to none.

    .. code-block:: yaml

        Immich's administrator is signed up:
          immich_account.administrator_present:
            - name: ana@example.org
            - full_name: Ana
            - password_pillar: immich:admin:password
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Somebody has signed up as administrator"}
    changes = {name: {"old": None, "new": "administrator"}}
    client = api.Client(url, wait=api.patience(__opts__["test"]))
    try:
        if _signed_up(client, postgres):
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "changes": changes, "comment": f"{name} would be signed up"}
        made = client.sign_up(name, full_name, _password(password_pillar))
        if not _signed_up(client, postgres) or not made["isAdmin"] or made["email"].lower() != name.lower():
            raise CommandExecutionError("There were no errors, but Immich has signed up nobody, or somebody else")
    except FAILURES as error:
        if __opts__["test"]:  # it is not there yet, or is about to be restarted
            comment = f"{name} would be signed up, unless somebody is. Now that is not known: {error}"
            return {**ret, "result": None, "changes": changes, "comment": comment}
        return {**ret, "result": False, "comment": f"{name} was not signed up: {error}"}
    return {**ret, "changes": changes, "comment": f"{name} was signed up"}


def _signed_up(client, postgres):
    try:
        return client.signed_up()
    except api.ApiError as error:
        if error.status != 404 or not postgres:
            raise
    found, why = administrator.in_database(postgres, __salt__)
    if found is None:
        raise CommandExecutionError(why)
    return found


def sign_up_closed(name, settings):
    """
    Close sign-up for good, then open the port, once an administrator has signed up. Immich is restarted.

    Used where the port is for this host alone so far (``once_signed_up`` of the settings), so that it always changes.

    name
        What the state is about, for the output.

    settings
        The formula's settings, as they are once somebody has signed up.

    .. code-block:: yaml

        Sign-up is closed, and the port of Immich is open:
          immich_account.sign_up_closed:
            - settings: {{ dict(settings, **settings.once_signed_up) | json }}
    """
    addresses = ", ".join(settings["bind_address"])
    changes = {
        "sign-up": {"old": "for this host alone", "new": "closed"},
        "port": {"old": "for this host alone", "new": f"open at {addresses}"},
    }
    comment = f"Sign-up is closed, the port open at {addresses}"
    ret = {"name": name, "changes": changes, "result": True, "comment": comment}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": f"Sign-up would be closed, then the port opened at {addresses}"}
    declared = __salt__["immich_gateway.desired"](settings)
    rules = {key: declared[key] for key in ("address", "network", "ports", "host_ports")}
    table = {key: declared[key] for key in ("sign_up", "metrics_allow")}
    steps = (
        ("immich_app.compose_file_managed", f"{settings['project_dir']}/docker-compose.yml", {"settings": settings}),
        ("immich_app.running", units.IMMICH, {"settings": settings}),
        # Not before nobody can sign up.
        ("file.managed", gateway.RULES, {**RULES, "context": {**rules, **table}}),
        ("immich_gateway.active", name, rules),
    )
    for state, about, arguments in steps:
        done = __states__[state](about, **arguments)
        if done["result"] is False:
            return {**ret, "result": False, "changes": {}, "comment": done["comment"]}
    return ret


def key_present(name, email, password_pillar, url="http://127.0.0.1:2283"):
    """
    Make sure that the formula has an API key of its own that Immich accepts, in a file that only root reads.

    The administrator's password is needed to make one, and for nothing else.

    name
        Path of the file.

    email
        The administrator's e-mail address.

    password_pillar
        Pillar path of the administrator's password, as in ``immich:admin:password``.

    url
        The server's address, without a path. Defaults to ``http://127.0.0.1:2283``.

    .. code-block:: yaml

        The formula's API key is present:
          immich_account.key_present:
            - name: /var/lib/immich-formula/api-key.json
            - email: ana@example.org
            - password_pillar: immich:admin:password
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Immich accepts the formula's API key"}
    try:
        found = api_key.state(url, name, api.patience(__opts__["test"]))
        if found == "works":
            return ret
        changes = {name: {"old": None if found == "absent" else "refused by Immich", "new": "made"}}
        if __opts__["test"]:
            return {**ret, "result": None, "changes": changes, "comment": "An API key would be made"}
        with _logged_in(url, email, password_pillar) as client:
            api_key.make(client, name)
    except FAILURES as error:
        result = None if __opts__["test"] else False
        return {**ret, "result": result, "comment": f"The formula's API key could not be checked or made: {error}"}
    return {**ret, "changes": changes, "comment": "An API key was made"}


def key_absent(name, url="http://127.0.0.1:2283"):
    """
    Make sure that the formula has no API key: neither in Immich nor on this host.

    name
        Path of its file.

    url
        The server's address, without a path. Defaults to ``http://127.0.0.1:2283``.

    .. code-block:: yaml

        The formula's API key is absent:
          immich_account.key_absent:
            - name: /var/lib/immich-formula/api-key.json
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The formula has no API key"}
    if not os.path.lexists(name):
        return ret
    ret["changes"] = {name: {"old": "present", "new": None}}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": "The formula's API key would be deleted"}
    try:
        deleted = api_key.remove(url, name)
    except OSError as error:
        return {**ret, "result": False, "changes": {}, "comment": str(error)}
    if deleted:
        return {**ret, "comment": "The formula's API key was deleted"}
    kept = "Immich did not answer or refused, and may still list the key, which no one has any more"
    return {**ret, "comment": f"The formula's API key was deleted on this host. {kept}"}


def _password(path):
    password = pillar.value(__pillar__, path)
    if not isinstance(password, str):
        raise CommandExecutionError(f"The pillar has no password at {path}")
    return password


@contextlib.contextmanager
def _logged_in(url, email, password_pillar):
    """A client that has logged in as administrator, whose session ends with the block."""
    client = api.Client(url, wait=api.patience(__opts__["test"]))
    try:
        account = client.login(email, _password(password_pillar))
    except api.ApiError as error:
        if not error.refused:
            raise
        raise CommandExecutionError(f"{error}. {_way_in(client, email, password_pillar)}") from None
    try:
        if not account["isAdmin"]:
            raise CommandExecutionError(f"{email} is no administrator in Immich. Name one in immich:admin")
        yield client
    finally:
        with contextlib.suppress(api.ApiError):  # nobody has the token of a session that stays
            client.logout()


def _way_in(client, email, password_pillar):
    if not client.has_password_login():
        return (
            "The formula logs in once, to make its key: set passwordLogin:enabled to true in immich:settings or on "
            "Immich's page, apply, then set it back"
        )
    return (
        f"{password_pillar} is the initial password: if {email} has another one now, put that into the "
        f"pillar, then apply again. If somebody else is the administrator, name that account in the pillar"
    )
