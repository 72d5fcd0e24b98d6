"""The search with kills: parts of a real stack are killed at random while a pipeline runs.

`python -m differential.kills 60` kills 60 times, and prints which nodes ran twice, and how long before
the first of the two had been committed. Every run must end well.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import click
import httpx

from support import trial
from support.live import Live, own_stack
from support.waiting import wait_for

PIPELINE = "kills"
_PARTS = ("build", "scheduler", "api-server", "triggerer", "postgres")
# How many models a run has, in chains of this length, and how long each takes in seconds.
_CHAINS, _LENGTH, _SECONDS = 6, 8, 0.4
# A part that hangs is started anew within 3 minutes, and Airflow takes minutes to notice what has vanished.
_PATIENCE = 1200.0
_STATES = ("failed", "upstream_failed")


@dataclass(frozen=True)
class Twice:
    """A model that ran twice: how many seconds before the kill its first run was committed."""

    model: str
    before: float
    killed: tuple[str, ...]


class Kills:
    """Kills in one stack."""

    def __init__(self, live: Live, chance: random.Random) -> None:
        self._live, self._chance = live, chance
        self.failed: list[str] = []
        self.twice: list[Twice] = []

    def round(self) -> tuple[str, ...]:
        """One run, and one kill in it; returns what was killed."""
        live, chance = self._live, self._chance
        live.query("truncate dev.kills_log")
        answer = live.airflow.trigger(PIPELINE)
        answer.raise_for_status()
        run_id = answer.json()["dag_run_id"]
        at = chance.randrange(1, _CHAINS * _LENGTH)
        wait_for(f"{at} models have been built", lambda: self._built() >= at, _PATIENCE)
        time.sleep(chance.random() * _SECONDS)
        parts = tuple(chance.sample(_PARTS, 2 if chance.random() < 0.3 else 1))
        pids = [wait_for(f"{part} has a process", lambda p=part: self._pid(p, run_id)) for part in parts]
        moment = datetime.now().astimezone()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        state = self._end(run_id)
        self._take(run_id, state, parts, moment)
        return parts

    def _built(self) -> int:
        return int(self._live.query("select count(*) from dev.kills_log")[0][0])

    def _pid(self, part: str, run_id: str) -> int | None:
        pid: int | None
        if part == "build":
            pid = self._live.airflow.tasks(PIPELINE, run_id)["build"]["pid"]
        else:
            pid = {each.name: each.pid for each in self._live.stack.status()}[part]
        return pid

    def _end(self, run_id: str) -> str:
        """The state of the run; where the warehouse died, what it failed is tried again, as docs say."""
        state = self._ended(run_id)
        for _ in range(3):
            if state == "success":
                break
            done = self._live.orrery("retry", PIPELINE, "--failed", "--run-id", run_id)
            state = "success" if done.code == 0 else self._ended(run_id)
        return state

    def _ended(self, run_id: str) -> str:
        def look() -> str | None:
            # The api-server may be what was killed.
            with suppress(httpx.HTTPError):
                state = self._live.airflow.get(f"/dags/{PIPELINE}/dagRuns/{quote(run_id, safe='')}")["state"]
                return str(state) if state in ("success", "failed") else None
            return None

        return str(wait_for(f"{run_id} ends", look, _PATIENCE))

    def _take(self, run_id: str, state: str, parts: tuple[str, ...], moment: datetime) -> None:
        tasks = self._live.airflow.tasks(PIPELINE, run_id)
        bad = sorted(task_id for task_id, task in tasks.items() if task["state"] in _STATES)
        if state != "success" or bad:
            self.failed.append(f"{run_id}, {' and '.join(parts)} killed: {state}, {bad}")
        rows = self._live.query(
            "select model, min(ended), count(*) from dev.kills_log group by model having count(*) > 1"
        )
        self.twice += [Twice(model, (moment - ended).total_seconds(), parts) for model, ended, _ in rows]


def _make(root: Path) -> None:
    trial.copy(root)
    folder = root / "dbt" / "models" / PIPELINE / "core"
    folder.mkdir(parents=True)
    for chain in range(_CHAINS):
        for number in range(_LENGTH):
            before = f"-- depends_on: {{{{ ref('k{chain}_{number - 1}') }}}}\n" if number else ""
            (folder / f"k{chain}_{number}.sql").write_text(
                "{{ config(materialized='table', post_hook=\"insert into dev.kills_log "
                "values ('{{ this.name }}', clock_timestamp())\") }}\n"
                f"{before}select pg_sleep({_SECONDS})::text as slept\n",
                encoding="utf-8",
            )
    text = f"select: path:models/{PIPELINE}\nschedule: none\n"
    (root / "dbt" / "pipelines" / f"{PIPELINE}.yml").write_text(text, encoding="utf-8")


@click.command()
@click.argument("times", type=int)
@click.option("--seed", default=1, show_default=True)
def main(times: int, seed: int) -> None:
    """Kill TIMES times; exit code 1 if a run has not ended well."""
    with own_stack(_make) as live:
        assert live.orrery("up").code == 0
        live.query(
            "create schema if not exists dev; create table dev.kills_log (model text, ended timestamptz)"
        )
        assert live.orrery("run", PIPELINE).code == 0
        kills = Kills(live, random.Random(seed))
        for number in range(1, times + 1):
            began = time.monotonic()
            parts = kills.round()
            click.echo(
                f"{number}: {' and '.join(parts)} killed, {time.monotonic() - began:.0f} s, "
                f"{len(kills.twice)} ran twice so far, {len(kills.failed)} failed"
            )
    for each in kills.twice:
        click.echo(f"twice: {each.model}, committed {each.before:.2f} s before {' and '.join(each.killed)}")
    for text in kills.failed:
        click.echo(f"FAILED: {text}")
    click.echo(
        f"{times} kills: {times - len(kills.failed)} green in the end, {len(kills.twice)} nodes ran twice"
    )
    raise SystemExit(bool(kills.failed))


if __name__ == "__main__":
    main()
