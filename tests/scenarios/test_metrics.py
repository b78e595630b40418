"""Prometheus as docs/howto/metrics.md sets it up: it reads Immich and its host, and each alert is fired by a fault."""

import json
import shlex
import time

import pytest

from tests.host import images
from tests.host.machine import Host
from tests.host.registry import ADDRESS
from tests.scenarios.conftest import changed, deployed, pillar_with, recreated
from tests.scenarios.reader import Reader, shelf, stock

pytestmark = pytest.mark.long

TEXTFILE = "/var/lib/prometheus/node-exporter/immich.prom"
# No test waits for days, nor for half a minute, and none asks for the other figures of node_exporter.
QUICK = """
echo 'ARGS="--collector.disable-defaults --collector.textfile"' >/etc/default/prometheus-node-exporter
systemctl restart prometheus-node-exporter
sed -i 's/for: .*/for: 0s/' /etc/prometheus/immich-alerts.yml
sed -i 's/scrape_interval: .*/scrape_interval: 1s\\n  evaluation_interval: 1s/' /etc/prometheus/prometheus.yml
"""
# A backup of two days ago that was as large, in Prometheus's own storage.
PAST = """
systemctl stop prometheus
size=$(stat --format %s /var/backups/immich/*.dump) name=immich_host_backup_size_bytes then=$(($(date +%s) - 172800))
{ echo "# TYPE $name gauge"
  for minute in $(seq -15 60); do
    echo "$name{instance=\\"localhost:9100\\",job=\\"node\\"} $size $((then + minute * 60))"
  done
  echo '# EOF'
} >/run/test/past
promtool tsdb create-blocks-from openmetrics /run/test/past /var/lib/prometheus/metrics2 >/dev/null
chown -R prometheus:prometheus /var/lib/prometheus/metrics2
systemctl start prometheus
"""
BEACON = """
import json, salt.beacons, salt.config, salt.loader
opts = salt.config.minion_config("/etc/salt/minion")
opts["grains"] = salt.loader.grains(opts)
beacons = salt.beacons.Beacon(opts, salt.loader.minion_mods(opts))
print(json.dumps(beacons.process({"immich": []}, opts["grains"])))
"""


def query(host, expression):
    """The samples that Prometheus has for an expression now, by their labels without name and instance."""
    answer = host.out(f"curl -sG http://localhost:9090/api/v1/query --data-urlencode query={shlex.quote(expression)}")
    return {
        tuple(value for name, value in sorted(each["metric"].items()) if name not in ("__name__", "job")): float(
            each["value"][1]
        )
        for each in json.loads(answer)["data"]["result"]
    }


def wait_for_result(host, expression):
    """Wait until Prometheus has any sample for an expression."""
    ask = f"curl -sG http://localhost:9090/api/v1/query --data-urlencode query={shlex.quote(expression)}"
    host.wait_for(f"{ask} | grep -q '\"value\"'", 180)


def reached(expected, look):
    """What ``look`` returns, as soon as that is what is expected, or at last. A figure may be missing for a moment:
    Prometheus has one second to read it, on a machine that may be busy."""
    deadline = time.monotonic() + 180
    while True:
        late = time.monotonic() > deadline
        seen = look()
        if seen == expected or late:
            return seen
        time.sleep(0.5)


def assert_query(host, expression, expected):
    """Assert that Prometheus comes to have these samples for an expression."""
    assert reached(expected, lambda: query(host, expression)) == expected


def figure(host, name):
    """The value of a metric of the host that has no labels, as it stands in the file."""
    (line,) = (line for line in host.read(TEXTFILE).splitlines() if line.startswith(f"immich_host_{name} "))
    return float(line.split()[1])


def empty_panels(host):
    """Titles of the panels of the dashboard for which Prometheus has no sample."""
    dashboard = json.loads(host.read("/usr/local/share/immich-formula/grafana-dashboard.json"))
    return [
        panel["title"]
        for panel in dashboard["panels"]
        if not any(
            query(host, target["expr"].replace("$host", ".*").replace("$__range", "1h")) for target in panel["targets"]
        )
    ]


def firing(host):
    alerts = json.loads(host.out("curl -s http://localhost:9090/api/v1/alerts"))["data"]["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def wait_for_alerts(host, expected):
    """Wait until these alerts fire and no others."""
    assert reached(expected, lambda: firing(host)) == expected


def write_figures(host):
    host.run("systemctl start immich-metrics", timeout=300)


def wait_for_the_timer(host):
    """Wait until the timer has just run, or does not for a minute: it would write anew what a test has changed."""
    at = 'date -d "$(systemctl show -P NextElapseUSecRealtime immich-metrics.timer)" +%s'
    rests = "systemctl show -P ActiveState immich-metrics | grep -qx inactive"
    host.wait_for(f"test $(($({at}) - $(date +%s))) -gt 60 && {rests}", 400)


def events(host):
    """What the beacon raises now: the part and its new result, by the tag."""
    host.write("/run/test/beacon.py", BEACON)
    found = json.loads(host.out("/opt/salt/bin/python /run/test/beacon.py").splitlines()[-1])
    assert {event["tag"] for event in found} <= {"salt/beacon/host/immich/health"}
    return {event["data"]["part"]: (event["data"]["old"], event["data"]["new"]) for event in found}


@pytest.fixture(scope="module")
def host(first_run):
    with deployed(first_run, binds=shelf(images.watcher_packages)) as host:
        stock(host)
        # The registry that Podman's search asks, which takes no mirror for it.
        host.write(
            "/etc/containers/registries.conf.d/plain.conf", f'[[registry]]\nlocation = "{ADDRESS}"\ninsecure = true\n'
        )
        Reader(host).follow("docs/howto/metrics.md")
        host.pillar(pillar_with(metrics={"enabled": True}))
        host.run(QUICK)
        host.salt("immich.backup")
        host.run(PAST)
        write_figures(host)
        yield host


def test_prometheus_reads_immich_and_its_host(host):
    wait_for_result(host, "sum(up) == 3 and sum(immich_host_backups) == 1")
    assert_query(host, "up", {("localhost:9100",): 1, ("localhost:8081",): 1, ("localhost:8082",): 1})
    assert_query(host, "immich_users_total", {("localhost:8081",): 0})
    assert_query(host, "node_textfile_scrape_error", {("localhost:9100",): 0})
    assert_query(host, 'immich_host_part_status{part="Valkey"}', {("localhost:9100", "Valkey"): 0})
    rows = host.salt("immich.doctor", "timeout=60")
    assert_query(host, "count(immich_host_part_status)", {(): len({row["part"] for row in rows})})
    assert [row["seen"] for row in rows if row["part"] == "metrics"] == [
        "Immich's are published, those of this host are written"
    ]
    dump = host.out("stat --format '%s' /var/backups/immich/*.dump")
    assert_query(host, "immich_host_backup_size_bytes", {("localhost:9100",): float(dump)})
    assert host.out(f"stat --format '%a %U' {TEXTFILE}") == "644 root"
    assert host.out(f"promtool check metrics <{TEXTFILE} 2>&1") == ""


def test_the_same_figures_are_an_answer_of_salt(host):
    status = host.salt("immich.status")
    assert (status["version_installed"], status["version_declared"]) == ("v3.3.1", "v3.3.1")
    assert (status["result"], status["failed"], status["backups"]) == ("warning", 0, 1)
    assert all(
        isinstance(value, (str, int, float, bool, type(None))) for key, value in status.items() if key != "parts"
    )


def test_a_run_changes_nothing_twice_and_is_recorded(host):
    assert changed(host.apply(test=True)) == {}
    assert host.salt("immich.status")["plan_drift"] == 0
    states = host.apply()
    assert changed(states) == {}
    assert states[-1]["id"] == "The run is recorded for the metrics"
    status = host.salt("immich.status")
    assert status["apply_success"] is True
    # All states but the last, in tenths of a second.
    assert 0.8 < status["apply_seconds"] / (sum(state["duration"] for state in states) / 1000) < 1.1


def test_each_alert_is_fired_by_its_fault(host):
    wait_for_alerts(host, set())
    assert {new for _, new in events(host).values()} == {"warning"}  # what was not ok before
    assert events(host) == {}

    # A dump that is cut off, and Immich down.
    host.run("truncate --size 1000 /var/backups/immich/*.dump")
    assert "its SHA-256 is not that" in host.salt_call("immich.restore_drill", check=False).stderr
    host.run("systemctl stop immich")
    write_figures(host)
    wait_for_alerts(host, {"ImmichDown", "ImmichPartFailed", "ImmichBackupShrunk", "ImmichRestoreDrillFailed"})
    raised = events(host)
    assert raised["immich.service"] == ("ok", "failed")
    assert all(new in ("warning", "failed") for _, new in raised.values())
    host.run("systemctl start immich")

    # A version that no registry has; the registry has newer ones than the installed one.
    wrong = {"version": "v3.9.99", "server": {"image": f"{ADDRESS}/immich-app/immich-server"}}
    host.pillar(pillar_with(metrics={"enabled": True}, update={"check_releases": True}, **wrong))
    assert any(state["result"] is False for state in host.apply(check=False))
    host.apply(test=True, check=False)
    host.run(
        "cd /var/backups/immich && for file in *.dump*; do mv $file immich_20261101T023000Z_${file#immich_*_}; done"
    )
    write_figures(host)
    caused = {
        "ImmichApplyFailed",
        "ImmichDrift",
        "ImmichVersionNotApplied",
        "ImmichUpdateAvailable",
        "ImmichBackupOutdated",
    }
    wait_for_alerts(host, {*caused, "ImmichBackupShrunk", "ImmichRestoreDrillFailed"})
    assert reached([], lambda: empty_panels(host)) == []
    assert figure(host, "releases_behind") >= 2
    (row,) = (row for row in host.salt("immich.doctor", "timeout=60") if row["part"] == "releases")
    assert (row["result"], row["code"]) == ("warning", "release-newer")
    assert "is out; this host has v3.3.1, and is" in row["seen"]

    # A timer that has not run for two hours.
    wait_for_the_timer(host)
    host.run(f"sed -i -E 's/^(immich_host_status_timestamp_seconds) .*/echo \\1 $(($(date +%s) - 7200))/e' {TEXTFILE}")
    wait_for_alerts(host, {*caused, "ImmichBackupShrunk", "ImmichRestoreDrillFailed", "ImmichMetricsOutdated"})

    # All is repaired.
    host.pillar(pillar_with(metrics={"enabled": True}))
    host.run("rm /var/backups/immich/*")
    host.apply()
    host.salt("immich.backup")
    host.salt("immich.restore_drill")
    write_figures(host)
    wait_for_alerts(host, set())
    assert events(host)["immich.service"] == ("failed", "ok")
    host.run("systemctl stop prometheus prometheus-node-exporter")


def test_figures_that_are_not_written_are_a_row_of_the_doctor(host):
    wait_for_the_timer(host)
    host.run(f"touch --date '2 hours ago' {TEXTFILE}")
    (row,) = (row for row in host.salt("immich.doctor", "timeout=60") if row["part"] == "metrics")
    assert (row["result"], row["code"]) == ("failed", "metrics-outdated")
    host.run(row["remedy"], timeout=300)
    host.run("systemctl disable --now immich-metrics.timer")
    (row,) = (row for row in host.salt("immich.doctor", "timeout=60") if row["part"] == "metrics")
    assert (row["result"], row["code"]) == ("failed", "metrics-timer")
    assert set(changed(host.apply())) == {"The metrics of this host are scheduled"}


def test_only_who_is_allowed_reads_immichs_metrics(host):
    with Host("prometheus", lan=host.lan) as other:
        first, second = other.address, f"{other.address.rpartition('.')[0]}.200"
        other.run(f"ip address add {second}/24 dev host0")

        def readers():
            urls = [f"http://{host.address}:{port}/metrics" for port in (8081, 8082)]
            ask = "curl -sf --max-time 10 --connect-timeout 2 --interface {} {} | grep -q target_info"
            return {
                (address, url[-12:-8])
                for address in (first, second)
                for url in urls
                if other.run(ask.format(address, url), check=False).returncode == 0
            }

        assert readers() == set()  # it listens on 127.0.0.1
        declared = {"enabled": True, "listen": "0.0.0.0", "allow": [first]}
        host.pillar(pillar_with(metrics=declared))
        host.apply()
        allowed = {(first, "8081"), (first, "8082")}
        assert reached(allowed, readers) == allowed
        before = recreated(host)
        host.pillar(pillar_with(metrics={**declared, "allow": [second]}))
        host.apply()
        allowed = {(second, "8081"), (second, "8082")}
        assert reached(allowed, readers) == allowed
        assert recreated(host) == before
        host.run("curl -sf http://127.0.0.1:8081/metrics")


def test_a_port_of_somebody_else_is_found_before_anything_changes(host):
    host.run("systemd-run --unit other python3 -m http.server --bind 127.0.0.1 9182")
    host.wait_for("curl -s http://127.0.0.1:9182/ >/dev/null")
    host.pillar(pillar_with(metrics={"enabled": True, "microservices_port": 9182}))
    (failed,) = (state for state in host.apply(check=False) if state["result"] is False)
    assert "immich:metrics:microservices_port: 9182 is taken by python3 (other.service" in failed["comment"]
    host.run("systemctl stop other")


def test_without_the_setting_nothing_is_left(host):
    host.pillar(pillar_with())
    planned = set(changed(host.apply(test=True)))
    assert {"No metrics of this host are scheduled", "The metrics of this host are absent"} <= planned
    host.apply()
    assert host.run("curl -s http://127.0.0.1:8081/metrics", check=False).returncode == 7
    left = "systemctl cat immich-metrics.timer; ls /usr/local/share/immich-formula {}"
    assert host.run(left.format(TEXTFILE), check=False).stdout == ""
    assert changed(host.apply()) == {}


def test_an_update_is_recorded_with_its_downtime_and_all_is_removed(host):
    host.pillar(pillar_with(metrics={"enabled": True}, version="v3.3.2"))
    states = host.apply()
    (running,) = (state for state in states if state["id"] == "Immich is running")
    write_figures(host)
    assert f"{figure(host, 'update_downtime_seconds')} s" == running["changes"]["downtime"]["new"]
    host.apply("immich.metrics.clean")
    left = f"ls {TEXTFILE} /usr/local/share/immich-formula /var/lib/immich-formula/records"
    assert host.run(f"{left}; systemctl cat immich-metrics.timer", check=False).stdout == ""
    assert changed(host.apply("immich.metrics.clean", test=True)) == {}
