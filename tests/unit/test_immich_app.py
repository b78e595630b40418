"""What the service is told."""


def test_mounts_of_the_unit_are_quoted(modules, settings):
    unit = modules.immich_app.unit({**settings, "upload_location": "/srv/my photos 100%"})
    assert unit["mounts"] == ['"/srv/my photos 100%%"']
