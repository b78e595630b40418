"""
What the files and states of the library's backup need, decided once
====================================================================
"""

import json

from host_core import unit_file
from immich_core import library_backups, storage, units

FILES = {
    "program": "/usr/local/lib/immich-formula/immich-library-backup",
    "config": library_backups.CONFIG,
    "password": library_backups.PASSWORD,
    "environment": library_backups.ENVIRONMENT,
    "ssh_config": library_backups.SSH_CONFIG,
    "ssh_key": library_backups.SSH_KEY,
    "ssh_known_hosts": library_backups.SSH_KNOWN_HOSTS,
    "service": units.file(units.LIBRARY_BACKUP),
    "failed_service": units.file(units.LIBRARY_BACKUP_FAILED),
}
# What only this host knows of the repository, and what it need not fetch again.
FOLDERS = ("/var/lib/immich-library-backup", "/var/cache/immich-library-backup")
PILLAR = "immich:backup:library"
_PACKAGES = {"sftp": ["openssh-client"], "rclone": ["rclone"]}
# Of every unit that runs restic, as lines of a unit file. What it may read is everything, what it may write is named.
# A restore restores modes: a file that a container has made setuid must not keep the others from being restored.
_SANDBOX = (
    "UMask=0077",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "NoNewPrivileges=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "RuntimeDirectory=immich-library-backup",
    "RuntimeDirectoryPreserve=yes",
    "StateDirectory=immich-library-backup",
    "StateDirectoryMode=0700",
    "CacheDirectory=immich-library-backup",
    "CacheDirectoryMode=0700",
    # It has all night, and Immich's users are awake.
    "Nice=15",
    "IOSchedulingClass=best-effort",
    "IOSchedulingPriority=7",
    "CPUWeight=20",
    # The index of a repository takes about 200 MB for a million files; what the container writes decides how much.
    "MemoryMax=50%",
    "OOMPolicy=continue",
)


def plan(settings, minion):
    """The answer of ``immich.library_backup_plan``: ``None`` where the library is not backed up."""
    if not is_here(settings):
        return None
    library = settings["backup"]["library"]
    repository = library["repository"]
    config = {
        "repository": repository,
        "host": minion,
        "database": settings["postgres"]["database"],
        "exclude": library["exclude"],
        "external": list(external(settings)),
        "bandwidth": library["bandwidth"],
        "keep": {
            "daily": library["keep_daily"],
            "weekly": library["keep_weekly"],
            "monthly": library["keep_monthly"],
            "yearly": library["keep_yearly"],
        },
        "check_weeks": library["check_weeks"],
    }
    local = library_backups.local_path(repository)
    mounted = [*folders(settings), *external(settings).values(), *([local] if local else [])]
    return {
        "user": library_backups.USER,
        "user_id": library_backups.USER_ID,
        "packages": ["restic", *_PACKAGES.get(repository.partition(":")[0], [])],
        "local": local,
        "mounts": [unit_file.quoted(path) for path in mounted],
        "sandbox": [*sandbox(settings, quote=unit_file.quoted), *_reading(settings, unit_file.quoted)],
        "config": json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False),
        "ssh": library_backups.sftp_command(repository) is not None,
        "ssh_config": library_backups.ssh_config(library["has_ssh_key"], bool(library["ssh_known_hosts"])),
        "declared": [
            *(["ssh_key"] if library["has_ssh_key"] else []),
            *(["ssh_known_hosts"] if library["ssh_known_hosts"] else []),
        ],
        "pillar": PILLAR,
        "files": FILES,
    }


def is_here(settings):
    """Whether this host backs up the library."""
    return bool(settings) and settings["backup"]["library"]["repository"] is not None and "server" in settings["roles"]


def external(settings):
    """Directories of this host by the names that they have in a snapshot: those of external libraries, on request."""
    if not settings["backup"]["library"]["external_libraries"]:
        return {}
    return {library_backups.EXTERNAL + each["mount"]: each["path"] for each in settings["external_libraries"]}


def sandbox(settings, quote, writes=(), capabilities=("CAP_DAC_READ_SEARCH",)):
    """
    The settings of a unit that runs restic, as lines.

    settings
        The formula's.
    quote
        How a path is written where the lines go.
    writes
        Paths that it writes to besides its own folders and a repository on this host.
    capabilities
        What it may do besides its own files.
    """
    repository = settings["backup"]["library"]["repository"]
    local = library_backups.local_path(repository)
    network = [] if local else ["AF_INET", "AF_INET6"]
    held = " ".join(capabilities)
    return [
        f"User={library_backups.USER}",
        f"Group={library_backups.USER}",
        *_SANDBOX,
        f"CapabilityBoundingSet={held}",
        f"AmbientCapabilities={held}",
        f"RestrictAddressFamilies={' '.join(['AF_UNIX', *network])}",
        *(["PrivateNetwork=yes"] if local else []),
        *(f"ReadWritePaths={quote(path)}" for path in (*([local] if local else []), *writes)),
    ]


def _reading(settings, quote):
    """What a run sees as the two halves of a snapshot."""
    halves = {
        library_backups.LIBRARY: settings["upload_location"],
        library_backups.DATABASE: settings["backup"]["directory"],
    }
    bound = [f"BindReadOnlyPaths={quote(path)}:{target(half)}" for half, path in halves.items()]
    bound += _bound_elsewhere("BindReadOnlyPaths", settings, quote)
    # One that is not there keeps nothing else from being backed up: the program reports it afterwards.
    bound += [f"BindReadOnlyPaths=-{quote(path)}:{quote(target(name))}" for name, path in external(settings).items()]
    return ["RestrictSUIDSGID=yes", f"TemporaryFileSystem={library_backups.TREE}:ro", *bound]


def writing(settings, quote):
    """The library and the external ones of the snapshots, where a restore can write to them."""
    bound = [f"BindPaths={quote(settings['upload_location'])}:{target(library_backups.LIBRARY)}"]
    bound += _bound_elsewhere("BindPaths", settings, quote)
    bound += [f"BindPaths=-{quote(path)}:{quote(target(name))}" for name, path in external(settings).items()]
    return [f"TemporaryFileSystem={library_backups.TREE}:ro", *bound]


def folders(settings):
    """The library's folder, and those of its folders that are elsewhere."""
    return [settings["upload_location"], *storage.elsewhere(settings).values()]


def _bound_elsewhere(setting, settings, quote):
    """The library's folders on other disks, at their places in it: a snapshot has them wherever they are."""
    apart = storage.elsewhere(settings).items()
    return [f"{setting}={quote(path)}:{target(library_backups.LIBRARY)}/{folder}" for folder, path in apart]


def target(half):
    """Where a unit sees one half."""
    return f"{library_backups.TREE}/{half}"
