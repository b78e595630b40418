"""What asks or changes the host for Immich: imported by modules, states and the programs on the host; without Salt."""
