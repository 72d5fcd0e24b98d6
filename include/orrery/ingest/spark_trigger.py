"""Waits for Spark applications without a worker."""

from __future__ import annotations

from typing import Any

from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from kubernetes_asyncio.client import ApiException, CustomObjectsApi

GROUP, VERSION, PLURAL = "sparkoperator.k8s.io", "v1beta2", "sparkapplications"
DRIVER = "-driver"


class SparkTrigger(KubernetesPodTrigger):
    """Waits for the driver; when a user ends the task, the application goes, not the driver alone.

    Its parameters are the provider's.
    """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        _, arguments = super().serialize()
        return f"{__name__}.{type(self).__name__}", arguments

    async def on_kill(self) -> None:
        await super().on_kill()
        if self._fired_event:
            return
        name = self.pod_name.removesuffix(DRIVER)
        async with self.hook.get_conn() as connection:
            try:
                await CustomObjectsApi(connection).delete_namespaced_custom_object(
                    GROUP, VERSION, self.pod_namespace, PLURAL, name
                )
            except ApiException as error:
                if error.status != 404:
                    raise
