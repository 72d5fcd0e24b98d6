"""The stack of the pipeline tests comes from a plugin, so that both folders share one; so does PostgreSQL."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Make the fixtures of tests/support known."""
    config.pluginmanager.import_plugin("support.live")
    config.pluginmanager.import_plugin("support.warehouse")
