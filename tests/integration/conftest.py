"""The stack of the pipeline tests comes from a plugin, so that both folders share one."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Make the fixtures of tests/support/live.py known."""
    config.pluginmanager.import_plugin("support.live")
