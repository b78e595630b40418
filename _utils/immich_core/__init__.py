"""What the formula decides, without Salt: imported by its modules and states, and by the programs on the host."""
