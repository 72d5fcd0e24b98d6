"""Which parts of the stack are silent, and what supervisord's listener says to it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from supervisor import childutils

from orrery.local import watch
from orrery.local.layout import Layout

TICK = "ver:3.0 server:orrery serial:1 pool:watch poolserial:1 eventname:TICK_60 len:15\nwhen:1764340000"


def entry(*, start: float, state: str = "RUNNING") -> dict[str, Any]:
    return {"pid": 7, "statename": state, "start": start, "now": 1000.0}


@pytest.mark.parametrize(
    ("beat", "entry", "found"),
    [
        (950.0, entry(start=100.0), {}),
        (930.0, entry(start=100.0), {"scheduler": 7}),
        # It has just been started: the sign of life is that of its predecessor.
        (100.0, entry(start=950.0), {}),
        (0.0, entry(start=930.0), {"scheduler": 7}),
        (100.0, entry(start=100.0, state="STOPPING"), {}),
    ],
)
def test_who_is_silent(beat: float, entry: Mapping[str, Any], found: dict[str, int]) -> None:
    parts = {"scheduler": entry, "postgres": {**entry, "pid": 8}}
    assert watch.silent({"scheduler": beat}, parts, 60.0) == found


def test_a_look_at_every_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Any] = [{"scheduler": 7}, OSError("refused"), {}]
    given: list[Mapping[str, int]] = []

    def look(layout: Layout, suspects: Mapping[str, int]) -> dict[str, int]:
        given.append(suspects)
        found = answers.pop(0)
        if isinstance(found, OSError):
            raise found
        return dict(found)

    monkeypatch.setattr(watch, "look", look)
    monkeypatch.setattr(Layout, "of_environment", lambda: Layout(tmp_path, tmp_path))
    told, said = io.StringIO(TICK * 3), io.StringIO()
    listener = childutils.EventListenerProtocol()
    wait, ok = listener.wait, listener.ok
    monkeypatch.setattr(childutils.listener, "wait", lambda: wait(told, said))
    monkeypatch.setattr(childutils.listener, "ok", lambda: ok(said))
    # supervisord is gone when its line ends.
    with pytest.raises(KeyError, match="len"):
        watch.main()
    assert given == [{}, {"scheduler": 7}, {}]
    assert said.getvalue() == "READY\nRESULT 2\nOK" * 3 + "READY\n"
    assert capsys.readouterr().err.endswith(" cannot look: refused\n")
