"""The documentation: pages, the generators of those that are computed, and their build (``nox -s docs``)."""
