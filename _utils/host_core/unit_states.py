"""
The states of a systemd unit, as its property ActiveState has them
===================================================================

Source: ``unit_active_state_table`` of src/basic/unit-def.c, systemd 257.
"""

# It does its work, also while it reads its configuration again.
RUNNING = ("active", "reloading", "refreshing")
# It does its work, or is about to.
STARTED = (*RUNNING, "activating")
# Nothing of it runs.
DOWN = ("inactive", "failed")
