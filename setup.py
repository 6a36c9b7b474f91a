"""Puts ``scd``, ``baselines`` and ``studies`` into the wheel as parts of its one top-level package, ``scd_suite``."""

from setuptools import find_packages, setup

PARTS = ("scd", "baselines", "studies")
packages = [name for part in PARTS for name in (part, *(f"{part}.{inner}" for inner in find_packages(part)))]

setup(
    packages=["scd_suite", *(f"scd_suite.packages.{name}" for name in packages)],
    package_dir={f"scd_suite.packages.{name}": name.replace(".", "/") for name in packages},
    package_data={"scd_suite.packages.studies": ["conf/**/*.yaml"]},
)
