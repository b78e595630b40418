"""Networks of Podman without Salt and without Podman: what a description means, and in what a network differs."""
