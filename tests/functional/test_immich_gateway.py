"""The gateway on a real host: unit, address, firewall table, and who gets through."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from immich_host import gateway

ADDRESS = "10.88.0.1"
NETWORK = {
    "name": "t-immich",
    "subnet": "10.207.0.0/16",
    "gateway": "10.207.0.1",
    "interface_name": "t-immich0",
    "isolate": True,
}
PORTS = [15432, 16379]
OTHER_PORT = 18080
RULES = Path("/etc/immich-gateway.nft")
UNIT = Path("/etc/systemd/system/immich-gateway.service")
DROP_IN = Path("/etc/systemd/system/nftables.service.d/immich-gateway.conf")


def run(*command, check=True):
    return subprocess.run(command, capture_output=True, text=True, check=check)


def on_lo():
    (lo,) = json.loads(run("ip", "-json", "address", "show", "dev", "lo").stdout)
    return {each["local"] for each in lo["addr_info"]} - {"127.0.0.1", "::1"}


def table():
    return run("nft", "-s", "list", "table", "inet", "immich", check=False).stdout


def lan_address():
    (host0,) = json.loads(run("ip", "-json", "-4", "address", "show", "dev", "host0").stdout)
    return host0["addr_info"][0]["local"]


@pytest.fixture(autouse=True)
def _gateway_removed():
    yield
    if Path(f"/etc/containers/networks/{NETWORK['name']}.json").exists():
        run("podman", "network", "rm", NETWORK["name"])
    run("systemctl", "stop", "immich-gateway", "nftables", check=False)
    for path in (RULES, UNIT, DROP_IN):
        path.unlink(missing_ok=True)
    run("systemctl", "daemon-reload")
    run("systemctl", "reset-failed")
    assert on_lo() == set()
    assert table() == ""


@pytest.fixture
def _no_containers_left(_gateway_removed):
    yield
    run("podman", "rm", "--all", "--force", "--time=0")


@pytest.fixture
def written(states):
    """A function that writes rules, unit and drop-in as immich.gateway does, and returns the states' arguments."""

    def write(address=ADDRESS, network=NETWORK, ports=PORTS, host_ports=(), sign_up="open", metrics_allow=()):
        arguments = {"address": address, "network": network, "ports": ports, "host_ports": list(host_ports)}
        for path in (RULES, UNIT):
            template = f"salt://immich/gateway/files/{path.name}.j2"
            context = {**arguments, "sign_up": sign_up, "metrics_allow": list(metrics_allow)}
            ret = states.file.managed(str(path), source=template, template="jinja", context=context)
            assert ret.result is True, ret.comment
        source = "salt://immich/gateway/files/nftables.conf"
        assert states.file.managed(str(DROP_IN), source=source, makedirs=True).result is True
        return arguments

    return write


# --- unit, address and table -----------------------------------------------------------------------------------


def test_active_starts_the_unit(states, written, testmode):
    arguments = written()
    ret = states.immich_gateway.active("gateway", **arguments, test=testmode)
    assert ret.result is (None if testmode else True), ret.comment
    assert ret.changes == {
        ADDRESS: {"old": None, "new": "on lo"},
        "firewall": {"old": "absent", "new": "loaded"},
    }
    if testmode:
        assert (on_lo(), table()) == (set(), "")
        return
    assert on_lo() == {ADDRESS}
    assert "ip daddr 10.88.0.1 tcp dport { 15432, 16379 } jump services" in table()
    ret = states.immich_gateway.active("gateway", **arguments)
    assert (ret.result, ret.changes) == (True, {})


@pytest.mark.parametrize(
    ("command", "what"),
    (
        ("nft flush ruleset", {"firewall": "absent"}),
        ("nft delete table inet immich", {"firewall": "absent"}),
        ("nft flush chain inet immich services", {"firewall": "changed"}),
        ("nft insert rule inet immich services accept", {"firewall": "changed"}),
        ("ip address delete 10.88.0.1/32 dev lo", {ADDRESS: None}),
        ("systemctl stop immich-gateway", {ADDRESS: None, "firewall": "absent"}),
    ),
)
def test_active_mends_drift(states, written, command, what):
    arguments = written()
    states.immich_gateway.active("gateway", **arguments)
    as_loaded = table()
    run("sh", "-c", command)

    dry = states.immich_gateway.active("gateway", **arguments, test=True)
    assert dry.result is None
    assert {key: value["old"] for key, value in dry.changes.items()} == what
    real = states.immich_gateway.active("gateway", **arguments)
    assert real.result is True, real.comment
    assert real.changes == dry.changes
    assert (on_lo(), table()) == ({ADDRESS}, as_loaded)


def test_converged_check_takes_one_nft_process(modules, written, states, tmp_path, monkeypatch):
    arguments = written()
    states.immich_gateway.active("gateway", **arguments)
    log = tmp_path / "log"
    fake = tmp_path / "nft"
    fake.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec /usr/sbin/nft "$@"\n', encoding="utf8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin")
    assert gateway.status(modules.immich_gateway.plan(**arguments), {}) == {
        "address": True,
        "stale": [],
        "firewall": "loaded",
    }
    assert log.read_text(encoding="utf8").splitlines() == ["-s list table inet immich"]


@pytest.mark.parametrize("verb", ("start", "restart", "reload-or-restart", "stop"))
def test_table_survives_nftables_service(states, written, verb):
    """Debian's nftables.conf begins with `flush ruleset`, and its stop flushes too."""
    arguments = written()
    states.immich_gateway.active("gateway", **arguments)
    as_loaded = table()
    if verb != "start":
        run("systemctl", "start", "nftables")
    run("systemctl", verb, "nftables")
    assert (on_lo(), table()) == ({ADDRESS}, as_loaded)
    assert states.immich_gateway.active("gateway", **arguments).changes == {}


@pytest.mark.parametrize("ports", ([16379], []), ids=("one", "none"))
def test_new_rules_are_loaded(states, modules, written, ports):
    """A dry run, which writes no rules, learns of them by its watch."""
    written()
    states.immich_gateway.active("gateway", address=ADDRESS, network=NETWORK, ports=PORTS)
    arguments = {"address": ADDRESS, "network": NETWORK, "ports": ports, "host_ports": []}
    high = {
        "rules": {
            "file": [
                "managed",
                {"name": str(RULES)},
                {"source": f"salt://immich/gateway/files/{RULES.name}.j2"},
                {"template": "jinja"},
                {"context": {**arguments, "sign_up": "open", "metrics_allow": []}},
            ]
        },
        "gateway": {
            "immich_gateway": [
                "active",
                *({key: value} for key, value in arguments.items()),
                {"watch": [{"file": "rules"}]},
            ]
        },
    }
    outcomes = []
    for test in (True, False):
        (outcome,) = [each for each in modules.state.high(high, test=test) if each.id == "gateway"]
        outcomes.append(outcome.changes)
        assert outcome.result is (None if test else True), outcome.comment
        assert ("15432" in table()) is test
    assert outcomes[0] == outcomes[1] == {"firewall": {"old": "outdated", "new": "loaded"}}
    assert not any(each.changes for each in modules.state.high(high))


def test_new_unit_is_loaded(states, modules, written):
    """As after an update of the formula: neither address nor rules are others."""
    arguments = written()
    states.immich_gateway.active("gateway", **arguments)
    UNIT.write_text(UNIT.read_text(encoding="utf8").replace("Description=", "Description=New "), encoding="utf8")
    watched = {"unit": {"test": ["succeed_with_changes"]}}
    watching = ["active", *({key: value} for key, value in arguments.items()), {"watch": [{"test": "unit"}]}]
    for test in (True, False):
        outcomes = modules.state.high({**watched, "gateway": {"immich_gateway": watching}}, test=test)
        (outcome,) = [each for each in outcomes if each.id == "gateway"]
        assert outcome.result is (None if test else True), outcome.comment
        assert outcome.changes == {"firewall": {"old": "outdated", "new": "loaded"}}
        description = run("systemctl", "show", "--property=Description", "immich-gateway").stdout
        assert description.startswith("Description=New ") is not test


def test_changed_address_leaves_no_old_one(states, written):
    states.immich_gateway.active("gateway", **written())
    arguments = written(address="10.99.0.1")
    dry = states.immich_gateway.active("gateway", **arguments, test=True)
    real = states.immich_gateway.active("gateway", **arguments)
    assert real.result is True, real.comment
    assert set(real.changes) == set(dry.changes) | {"firewall"} == {ADDRESS, "10.99.0.1", "firewall"}
    assert on_lo() == {"10.99.0.1"}
    assert "10.99.0.1" in table()


def test_address_of_an_interface_stays_there(states, written):
    """A LAN address is not ours: never on lo, never removed; the firewall stands in front of it all the same."""
    address = lan_address()
    arguments = written(address=address)
    ret = states.immich_gateway.active("gateway", **arguments)
    assert ret.result is True, ret.comment
    assert set(ret.changes) == {"firewall"}
    assert on_lo() == set()
    assert f"ip daddr {address} " in table()
    run("systemctl", "stop", "immich-gateway")
    assert lan_address() == address


@pytest.mark.usefixtures("_no_containers_left")
def test_address_of_a_running_default_network_is_put_on_lo(states, written):
    """podman0 has it too, but only while a container runs there."""
    run("podman", "run", "--detach", "--name", "t-default", "--network", "podman", "--rootfs", "/:O", "sleep", "1000")
    ret = states.immich_gateway.active("gateway", **written())
    assert ret.result is True, ret.comment
    run("podman", "rm", "--force", "--time=0", "t-default")
    assert on_lo() == {ADDRESS}


def test_address_of_ipv6(states, modules, written):
    network = {"name": "t-immich", "subnet": "fd00:207::/64", "interface_name": "t-immich0"}
    ret = states.immich_gateway.active("gateway", **written(address="fd00:0088:0::1", network=network))
    assert ret.result is True, ret.comment
    assert on_lo() == {"fd00:88::1"}
    assert "ip6 daddr fd00:88::1 tcp dport" in table()
    assert 'iifname "t-immich0" ip6 saddr fd00:207::/64 accept' in table()
    ret = states.immich_gateway.active("gateway", address="fd00:88::1", network=network, ports=PORTS)
    assert (ret.result, ret.changes) == (True, {})


def test_names_are_answered_to_the_network_alone_by_ipv6_too(states, written):
    """Which packets that drops, tests/scenarios/test_gateway.py shows with a neighbour of IPv4."""
    arguments = written(network={**NETWORK, "ipv6_subnet": "fd20:207::/64"})
    assert states.immich_gateway.active("gateway", **arguments).result is True
    rules = [line for line in table().splitlines() if "proto-dst 53" in line]
    for address in ("ip daddr 10.207.0.1", "ip6 daddr fd20:207::1"):
        of_it = [line.strip() for line in rules if f"ct original {address}" in line]
        assert [line.rsplit(" ", 1)[1] for line in of_it] == ["drop", "accept"], table()
        assert of_it[0].startswith('iifname != "lo" iifname != "t-immich0"')


def test_without_the_firewall_no_address(states, written):
    arguments = written()
    RULES.write_text("table inet immich { nonsense }\n", encoding="utf8")
    ret = states.immich_gateway.active("gateway", **arguments)
    assert (ret.result, ret.changes) == (False, {})
    assert "immich-gateway" in ret.comment
    assert on_lo() == set()


def test_interface_is_the_one_that_podman_has(modules):
    """A Podman that cannot name interfaces (4.3) has another than the settings."""
    run("podman", "network", "create", "--subnet", NETWORK["subnet"], "t-immich")
    chosen = json.loads(run("podman", "network", "inspect", "t-immich").stdout)[0]["network_interface"]
    assert chosen != NETWORK["interface_name"]
    assert modules.immich_gateway.plan(ADDRESS, NETWORK, PORTS)["interface"] == chosen


def test_interface_that_nobody_knows_is_any_of_podman(states, written):
    network = {"name": "t-immich", "subnet": NETWORK["subnet"]}
    assert states.immich_gateway.active("gateway", **written(network=network)).result is True
    assert 'iifname "podman*" ip saddr 10.207.0.0/16 accept' in table()
    # Other networks' bridges have names like that too.
    assert 'iifname "podman*" ip saddr 10.207.0.0/16 jump containers' in table()
    assert 'oifname "podman*" iifname != "podman*" ip daddr 10.207.0.0/16 jump published' in table()


SERVER_DROPPED = "tcp dport 2283 counter"
ROOT_ALONE = "ip daddr 10.207.0.0/16 tcp dport 2283 meta skuid != 0 counter"


@pytest.mark.parametrize(
    ("sign_up", "forwarded", "local"), (("open", 0, 0), ("closed", 0, 0), ("host", 1, 0), ("root", 1, 1))
)
def test_the_server_is_closed_to_others_until_somebody_has_signed_up(states, written, sign_up, forwarded, local):
    assert states.immich_gateway.active("gateway", **written(sign_up=sign_up)).result is True
    published = table().partition("chain published")[2].partition("chain")[0]
    assert published.count(SERVER_DROPPED) == forwarded
    # Before what lets connections that are there go on.
    assert published.find(SERVER_DROPPED) < published.find("ct state")
    assert table().count(ROOT_ALONE) == local


@pytest.mark.parametrize(
    ("allow", "accepted"),
    (([], 0), (["192.0.2.7/32"], 1), (["192.0.2.0/24", "198.51.100.3/32"], 1)),
    ids=("nobody", "one", "several"),
)
def test_metrics_are_for_those_who_are_allowed(states, written, allow, accepted):
    assert states.immich_gateway.active("gateway", **written(metrics_allow=allow)).result is True
    published, metrics = (
        table().partition(f"chain {name}")[2].partition("chain")[0] for name in ("published", "metrics")
    )
    # Before what lets connections that are there go on.
    assert 0 < published.find("tcp dport { 8081, 8082 } jump metrics") < published.find("ct state")
    assert metrics.count("ip saddr") == accepted
    rules = [line.strip() for line in metrics.splitlines()]
    assert rules[rules.index("}") - 1] == "counter drop"


@pytest.mark.parametrize(
    ("host", "here"), (("host.containers.internal", True), ("127.0.0.1", True), ("192.0.2.7", False), ("cache", False))
)
def test_wanted_are_managed_services_only(modules, host, here):
    settings = {
        "gateway_address": ADDRESS,
        "network": NETWORK,
        "host_ports": [443],
        "sign_up": "root",
        "metrics": {"allow": ["192.0.2.0/24"]},
        "postgres": {"managed": True, "here": True, "port": 5432},
        "valkey": {"managed": False, "here": False, "port": 6379, "host": host},
        "lookup": {"postgres": {"unit": "postgresql@17-main"}, "valkey": {"service": "valkey-server"}},
    }
    assert modules.immich_gateway.desired(settings) == {
        "address": ADDRESS,
        "network": NETWORK,
        "ports": [5432],
        "host_ports": [443, 6379] if here else [443],
        "services": ["postgresql@17-main"],
        "sign_up": "root",
        "metrics_allow": ["192.0.2.0/24"],
    }


# --- who gets through --------------------------------------------------------------------------------------------

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1.5)"


def connects(*prefix, port=PORTS[0]):
    return run(*prefix, "python3", "-c", CONNECT, ADDRESS, str(port), check=False).returncode == 0


def gets_through(*prefix, port=PORTS[0]):
    """Whether somebody who is let through connects, at the latest when this machine has time for it."""
    return any(connects(*prefix, port=port) for _ in range(40))


def container(network):
    return "podman", "run", "--rm", "--network", network, "--rootfs", "/:O"


@pytest.fixture
def listening(states, modules, written, _no_containers_left):
    """Gateway and network in place, and something that listens at the address, on each port and one more."""
    assert states.podman_network.present(**NETWORK).result is True
    assert states.immich_gateway.active("gateway", **written()).result is True
    script = f"""
import selectors, socket
waiting = selectors.DefaultSelector()
for port in {[*PORTS, OTHER_PORT]}:
    waiting.register(socket.create_server(({ADDRESS!r}, port)), selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        key.fileobj.accept()
"""
    server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"ready\n"
    yield
    server.kill()
    server.wait()


@pytest.fixture
def neighbour():
    """Somebody on the LAN who sends packets for the address to this host: command prefix to be there."""
    run("ip", "netns", "add", "t-lan")
    run("ip", "link", "add", "t-lan0", "type", "veth", "peer", "name", "eth0", "netns", "t-lan")
    run("ip", "address", "add", "192.0.2.1/24", "dev", "t-lan0")
    run("ip", "link", "set", "t-lan0", "up")
    inside = ("ip", "netns", "exec", "t-lan")
    run(*inside, "ip", "address", "add", "192.0.2.2/24", "dev", "eth0")
    run(*inside, "ip", "link", "set", "eth0", "up")
    run(*inside, "ip", "route", "add", "default", "via", "192.0.2.1")
    yield inside
    run("ip", "netns", "delete", "t-lan")
    for _ in range(1200):  # the kernel removes the other end a little later
        if not Path("/sys/class/net/t-lan0").exists():
            break
        time.sleep(0.1)


@pytest.mark.usefixtures("listening")
def test_only_the_immich_network_gets_through(neighbour):
    assert gets_through(*container("t-immich"))
    assert gets_through()  # the host itself
    assert not connects(*container("podman"))
    for port in PORTS:
        assert not connects(*neighbour, port=port)
    assert gets_through(*neighbour, port=OTHER_PORT)  # the way is there: it is the firewall that closes the ports


@pytest.mark.usefixtures("listening")
def test_the_immich_network_gets_to_no_other_port_unless_it_is_said(states, written):
    inside = container("t-immich")
    assert not connects(*inside, port=OTHER_PORT)
    ret = states.immich_gateway.active("gateway", **written(host_ports=[OTHER_PORT]))
    assert ret.changes == {"firewall": {"old": "outdated", "new": "loaded"}}
    assert gets_through(*inside, port=OTHER_PORT)
    assert all(gets_through(*inside, port=port) for port in PORTS)


@pytest.mark.usefixtures("listening")
def test_neighbour_with_an_address_of_the_network_does_not_get_through(neighbour):
    run(*neighbour, "ip", "address", "add", "10.207.0.66/32", "dev", "eth0")
    run(*neighbour, "ip", "route", "replace", "default", "via", "192.0.2.1", "src", "10.207.0.66")
    run("ip", "route", "add", "10.207.0.66/32", "dev", "t-lan0")
    assert gets_through(*neighbour, port=OTHER_PORT)
    assert not connects(*neighbour)


@pytest.mark.usefixtures("listening")
def test_containers_on_the_default_network_come_and_go():
    """podman0 carries the same address while they run."""
    run("podman", "run", "--detach", "--name", "t-default", "--network", "podman", "--rootfs", "/:O", "sleep", "1000")
    assert "10.88.0.1/16" in run("ip", "address", "show", "dev", "podman0").stdout
    assert gets_through(*container("t-immich"))
    assert gets_through("podman", "exec", "t-default", port=OTHER_PORT)
    assert not connects("podman", "exec", "t-default")
    run("podman", "rm", "--force", "--time=0", "t-default")
    assert on_lo() == {ADDRESS}
    assert gets_through(*container("t-immich"))
