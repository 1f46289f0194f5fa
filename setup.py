"""Map the folders core/ and plugins/ to llm_run.core and llm_run.plugins. All else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    package_dir={"llm_run": "."},
    packages=[f"llm_run.{name}" for name in find_packages(include=["core*", "plugins*"])],
)
