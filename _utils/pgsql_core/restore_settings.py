"""
Memory and workers for a restore, as a host has them free
=========================================================
"""

MEBIBYTE = 1024**2
# What PostgreSQL gives a session to build an index by default, and more than which none of an application's needs.
LEAST_MEMORY, MOST_MEMORY = 64 * MEBIBYTE, 8 * 1024 * MEBIBYTE
# Other programs go on meanwhile, and have this part of the memory that is free.
PART_FOR_OTHERS = 2
# More processes than these wait for the disk.
MOST_JOBS, MOST_WORKERS = 4, 8


def jobs(processors):
    """
    Return how many processes restore.

    processors
        Of this host.
    """
    return min(processors or 1, MOST_JOBS)


def of_session(size, processors, free):
    """
    Return the options of the sessions of a restore, as PGOPTIONS has them.

    An index of vectors is most of it. It is built by several processes, whatever little the table seems to have: its
    vectors lie beside it. It takes 2.3 times the CPU once its graph has no room in the memory, which is taken
    when the build begins. So it gets half of what the vectors take as text, which is more than their graph.

    size
        What the rows take as text, in bytes.
    processors, free
        Of the host of the server: how many, and bytes of memory; None for a host that is not this one.
    """
    settings = {
        "max_parallel_maintenance_workers": min(max(2, (processors or 1) - 1), MOST_WORKERS),
        "min_parallel_table_scan_size": 0,
        # The transaction that gives the database its name is written with all before it.
        "synchronous_commit": "off",
    }
    if free is not None:
        share = min(size // 2, free // PART_FOR_OTHERS // jobs(processors), MOST_MEMORY)
        settings["maintenance_work_mem"] = f"{max(share, LEAST_MEMORY) // 1024}kB"
    return " ".join(f"-c {name}={value}" for name, value in settings.items())
