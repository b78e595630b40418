"""The test hosts themselves: what happens on one is not felt on another."""

from tests.host.lan import Lan
from tests.host.machine import Host


def test_service_killed_on_one_host_lives_on_another():
    with Lan() as lan, Host("one", lan=lan) as one, Host("two", lan=lan) as two:
        for host in (one, two):
            host.run("systemd-run --quiet --unit=sleeper sleep infinity")
        one.run("systemctl kill --signal=KILL sleeper")
        one.wait_for("! systemctl is-active sleeper")
        assert two.out("systemctl show --property=ActiveState,Result sleeper") == "Result=success\nActiveState=active"


def test_what_waits_for_calls_is_no_call_to_salt():
    """After a power cut it may have the PID of a `state.apply` that was cut off, whose file Salt still has."""
    with Host("one") as one:
        one.salt_call("test.ping")
        assert one.run("pgrep --full --list-full '[s]alt'", check=False).stdout == ""
