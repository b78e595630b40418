"""
Part: the host's CPU, time zone and SELinux
===========================================
"""

import os
import re

from immich_diagnosis.check import FAILED, OK, WARNING, Check
from immich_diagnosis.facts import read_text, settings_of

# x86-64-v2, by the names in /proc/cpuinfo: x86-64 psABI, table "Micro-Architecture Levels".
CPU_FLAGS = {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}


def _cpu(here):
    if not here["cache"]:
        return [(OK, "machine learning is off")]
    return _cpu_rows(read_text("/proc/cpuinfo"), os.uname().machine)


def _cpu_rows(cpuinfo, machine):
    if machine != "x86_64":
        return [(OK, machine)]
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    missing = CPU_FLAGS - set(flags.group(1).split() if flags else CPU_FLAGS)
    if not missing:
        return [(OK, "x86-64-v2")]
    seen = f"machine learning needs x86-64-v2, and this CPU lacks {', '.join(sorted(missing))}"
    return [(FAILED, seen, "immich:machine_learning:enabled: false")]


def _time_zone(here):
    zone = settings_of(here)["timezone"]
    return _time_zone_rows(zone, os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2])


def _time_zone_rows(zone, of_host):
    utc = ("Etc/UTC", "UTC", "Etc/UCT", "Universal", "")
    if zone in utc and of_host not in utc:
        seen = f"Immich takes {zone}, and this host is in {of_host}: dates of photos will be off by hours"
        return [(WARNING, seen, f"immich:timezone: {of_host}")]
    return [(OK, zone)]


def _selinux(here):
    return _selinux_rows(read_text("/sys/fs/selinux/enforce"), here["compose"])


def _selinux_rows(enforce, compose):
    if enforce.strip() != "1":
        return [(OK, "not enforcing")]
    bound = [name for name, each in compose["services"].items() if "label=disable" not in each.get("security_opt", [])]
    if bound:
        seen = f"SELinux is enforcing, and denies {' and '.join(bound)} access to their volumes"
        return [(FAILED, seen, "salt-call saltutil.refresh_grains && salt-call state.apply immich.app")]
    return [(OK, "enforcing, but the containers are exempt")]


GROUPS = (
    (
        Check("CPU", _cpu),
        Check("time zone", _time_zone),
        Check("SELinux", _selinux),
    ),
)
