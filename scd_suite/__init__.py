"""The installed suite. A wheel has one top-level package, so that it takes no name of another project.

The packages ``scd``, ``baselines`` and ``studies`` are in the folder ``packages`` of the wheel, and beside this package
in a clone of the repository.
"""
