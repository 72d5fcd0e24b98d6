"""Waits for pods and Spark applications without a worker, and ends them when a user ends their task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.triggers.base import TriggerEvent
from kubernetes_asyncio.client import ApiException, CustomObjectsApi

from orrery.ingest.resume import unhurried

GROUP, VERSION, PLURAL = "sparkoperator.k8s.io", "v1beta2", "sparkapplications"
DRIVER = "-driver"
# Tasks that nobody refers to would be collected while they run.
_ending: set[asyncio.Future[None]] = set()


class PodTrigger(KubernetesPodTrigger):
    """Waits for a pod; its parameters are the provider's."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        _, arguments = super().serialize()
        return f"{__name__}.{type(self).__name__}", arguments

    def run(self) -> AsyncIterator[TriggerEvent]:
        return unhurried(super().run())

    async def on_kill(self) -> None:
        # Airflow cancels a trigger again every second until it is gone, and so would cancel this.
        ending = asyncio.ensure_future(self._end())
        _ending.add(ending)
        ending.add_done_callback(_ending.discard)
        await asyncio.shield(ending)

    async def _end(self) -> None:
        await super().on_kill()


class SparkTrigger(PodTrigger):
    """Waits for the driver of a Spark application, and ends the application."""

    async def _end(self) -> None:
        if not self._fired_event:
            await self._delete_application()
        await super()._end()

    async def _delete_application(self) -> None:
        name = self.pod_name.removesuffix(DRIVER)
        async with self.hook.get_conn() as connection:
            try:
                await CustomObjectsApi(connection).delete_namespaced_custom_object(
                    GROUP, VERSION, self.pod_namespace, PLURAL, name
                )
            except ApiException as error:
                if error.status != 404:
                    raise
