"""What Salt's modules and the programs on the host share about the host itself. Knows nothing of Immich."""
