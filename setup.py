"""Packages of the wheel: those below `stacklib`, and the notebooks, which pyproject.toml cannot add."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["stacklib", "stacklib.*"]), "stacklib.notebooks"])
