"""What a pull tells of how far it is."""


def test_how_far_a_pull_is_by_what_podman_writes(modules):
    first = (
        "Copying blob aa [=>---] 3.5MiB / 86.0MiB | 7.3 MiB/s\r\nCopying blob bb [-----] 0.0b / 741.0b\r\n"
        "\x1b[2A\x1b[JCopying blob aa [==>--] 43.0MiB / 86.0MiB\r\nCopying blob bb [=>---] 256.0b / 741.0b\r\n"
    )
    far = modules.immich_image.pulled(first)
    assert far == {"aa": [43 * 1024**2, 86 * 1024**2], "bb": [256, 741]}
    # What is done has no size any more in Podman's words, and what was there before none at all.
    then = modules.immich_image.pulled("Copying blob bb done   | \r\nCopying blob cc done   | \r\n", far)
    assert then == {**far, "bb": [741, 741], "cc": [0, 0]}
