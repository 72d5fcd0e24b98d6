"""Which Python modules dbt takes for its plugins: those of installed packages.

By itself dbt imports every module of `sys.path` whose name begins with `dbt_`. In Airflow that path has the
folder of the DAG files, where a file of somebody else may be called so.
"""

from __future__ import annotations

import importlib
import pkgutil
import site
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any


def only_installed() -> None:
    """From now on dbt looks for plugins in this process among the installed packages only."""
    from dbt.plugins.manager import PluginManager

    PluginManager.get_prefixed_modules = classmethod(_modules)  # type: ignore[assignment]


def _modules(cls: Any) -> dict[str, ModuleType]:
    """The modules of plugins by name; raises DbtRuntimeError when one of them cannot be imported."""
    from dbt_common.exceptions import DbtRuntimeError

    found = {}
    for finder, name, _ in pkgutil.iter_modules(package_folders()):
        if not name.startswith(cls.PLUGIN_MODULE_PREFIX):
            continue
        try:
            found[name] = importlib.import_module(name)
        except Exception as error:
            place = Path(getattr(finder, "path", ""), name)
            raise DbtRuntimeError(
                f"dbt's plugin {name} ({place}) cannot be imported: {type(error).__name__}: {error}\n"
                "Update the package that it belongs to, or uninstall it."
            ) from error
    return found


def package_folders() -> list[str]:
    """The folders of `sys.path` that packages are installed into, or that such a folder adds (`.pth`)."""
    schemes = sysconfig.get_paths()
    installed = {schemes["purelib"], schemes["platlib"], *site.getsitepackages()}
    if site.ENABLE_USER_SITE:
        installed.add(site.getusersitepackages())
    added: set[str] = set()
    for folder in installed:
        for file in Path(folder).glob("*.pth"):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            # Relative ones are meant from where the file lies.
            added |= {str(Path(folder, line.strip())) for line in lines if line.strip()}
    return [folder for folder in dict.fromkeys(sys.path) if folder in installed | added]
