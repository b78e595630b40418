"""Settings: a pillar is read, checked and turned into what the formula works with. Asks nothing of the host."""
