"""What the doctor checks: a file for each part, registered in ``parts``."""
