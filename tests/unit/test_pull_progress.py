"""What a pull shows of how far it is."""

from host_core import pull_progress


def test_how_far_a_pull_is_by_what_podman_writes():
    first = (
        "Copying blob aa [=>---] 3.5MiB / 86.0MiB | 7.3 MiB/s\r\nCopying blob bb [-----] 0.0b / 741.0b\r\n"
        "\x1b[2A\x1b[JCopying blob aa [==>--] 43.0MiB / 86.0MiB\r\nCopying blob bb [=>---] 256.0b / 741.0b\r\n"
    )
    far = pull_progress.of_layers(first)
    assert far == {"aa": [43 * 1024**2, 86 * 1024**2], "bb": [256, 741]}
    # What is done has no size any more in Podman's words, and what was there before none at all.
    then = pull_progress.of_layers("Copying blob bb done   | \r\nCopying blob cc done   | \r\n", far)
    assert then == {**far, "bb": [741, 741], "cc": [0, 0]}
    assert pull_progress.line(far) == "43.0 of 86.0 MiB"
    assert pull_progress.line({}) == "asking the registry"


def test_the_registrys_answer_is_what_is_left_without_the_progress():
    written = "Trying to pull x\r\nCopying blob aa [=>---] 3.5MiB / 86.0MiB\r\n\x1b[2A\x1b[JError: manifest unknown\r\n"
    assert pull_progress.last_words(written) == "Trying to pull x Error: manifest unknown"
