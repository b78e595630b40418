"""
Labels of containers: those of compose projects, and the formula's own
=======================================================================
"""

# Written by compose programs: the project's directory, and the service within it.
DIRECTORY = "com.docker.compose.project.working_dir"
SERVICE = "com.docker.compose.service"
# The service's definition in short, with which the container was created.
DEFINITION = "io.immich-formula.service-hash"
