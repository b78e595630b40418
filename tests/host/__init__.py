"""Disposable test hosts: real Debian machines with systemd as PID 1, booted in systemd-nspawn.

Standard library only, so that ``bin/demo`` and ``bin/test`` need nothing before them. Run as root.

- ``cache``: where built things are kept, and how a thing is built once.
- ``images``: the root file systems, the local apt repository and the wheelhouse.
- ``cgroup``: a cgroup of its own for each host.
- ``lan``: a network namespace with a bridge, on which hosts and the image registry live.
- ``machine``: one host: boot, run, reboot, power off, crash, keep a copy.
- ``registry``: the stand-in images and the registry that serves them.
- ``git_server``: the formula in a git repository, and the server for it.
"""
