"""
Subnets, addresses and ranges of addresses as Podman reads them
===============================================================
"""

import ipaddress

from podman_core.errors import DescriptionError


def subnet(text):
    """The subnet that a text stands for, or ``DescriptionError``."""
    try:
        # Podman takes any address of a subnet for the subnet.
        return ipaddress.ip_network(str(text), strict=False)
    except ValueError as exc:
        raise DescriptionError(f"{text} is no subnet: {exc}") from exc


def address(text):
    """The address that a text stands for, or ``DescriptionError``."""
    try:
        return ipaddress.ip_address(str(text))
    except ValueError as exc:
        raise DescriptionError(f"{text} is no address: {exc}") from exc


def bounds(ip_range):
    """First and last address of a range: Podman leaves out the first of a block, and keeps the last."""
    text = str(ip_range)
    if "-" in text:
        start, _, end = text.partition("-")
        return address(start.strip()), address(end.strip())
    network = subnet(text)
    return network[min(1, network.num_addresses - 1)], network[-1]
