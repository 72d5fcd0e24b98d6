"""The plugin through which Airflow finds the pages. All of Airflow's processes load it, so it is light."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/orrery"
# It keeps its colour where the menu marks the page that is open.
_ICON = (
    "data:image/svg+xml,"
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='{colour}' "
    "stroke-width='2' stroke-linejoin='round' stroke-linecap='round'%3E"
    "%3Cpath d='M12 3l8 4.5v9L12 21l-8-4.5v-9z M12 12l8-4.5 M12 12v9 M12 12L4 7.5'/%3E%3C/svg%3E"
)


class DataProducts(AirflowPlugin):
    """An entry in Airflow's menu, a tab of each DAG, and the application behind both."""

    name = "data_products"
    # Without a slash in front, so that Airflow may lie below a path.
    external_views: list[Any] = [  # noqa: RUF012 - as Airflow declares it
        {
            "name": "Data products",
            "href": f"{PREFIX.strip('/')}/",
            "destination": "nav",
            "nav_top_level": True,
            "url_route": "data-products",
            "icon": _ICON.format(colour="%236487bd"),
            "icon_dark_mode": _ICON.format(colour="%238fa6cc"),
        },
        {
            "name": "Data product",
            "href": f"{PREFIX.strip('/')}/pipelines/{{DAG_ID}}",
            "destination": "dag",
            "url_route": "data-product",
            "icon": _ICON.format(colour="%236487bd"),
            "icon_dark_mode": _ICON.format(colour="%238fa6cc"),
        },
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The application; only the api-server asks for it, and pays for its imports."""
        from orrery.pages.app import app

        return [{"app": app, "url_prefix": PREFIX, "name": "Data products"}]
