"""A shift leader recalibrates in the browser, and goes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import Tab, require_chromium, text
from tests.support.pages import TOKEN
from tests.support.stations import Agent, closed_port, good_parts, until, write_config, write_pictures

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_shift_leader_recalibrates_sees_the_figures_and_goes_back(bundle: Path, tmp_path: Path) -> None:
    require_chromium()
    parts = write_pictures(tmp_path / "parts", good_parts(60))
    (tmp_path / "token").write_text(TOKEN)
    web = {"enabled": True, "port": closed_port(), "token_file": "token"}
    camera = {"playback": "realtime", "frames_per_s": 30, "loop": True}
    settings = {"decision": {}, "recalibration": {"shadow_parts": 10, "quiet_s": 20}}
    config = write_config(tmp_path, bundle, parts, closed_port(), camera=camera, web=web, **settings)
    with Agent(config) as agent, Tab() as tab:
        until(lambda: "live page at" in agent.log)
        tab.look(390, 844)
        tab.open(f"http://127.0.0.1:{web['port']}/recalibrate.html")
        tab.until("document.querySelectorAll('#versions tbody tr').length === 1")
        assert tab.ask("document.getElementById('order').hidden"), "without the token nothing is changed"
        tab.ask(f"document.getElementById('token').value = '{TOKEN}'")
        tab.ask("document.querySelector('#unlock button').click()")
        tab.until("!document.getElementById('order').hidden")
        tab.ask(
            "document.querySelector('[value=threshold]').click(); document.querySelector('[name=parts]').value = 60"
        )
        tab.ask(
            "document.querySelector('[name=force]').click(); document.querySelector('[name=reason]').value = 'dust'"
        )
        tab.ask("document.getElementById('start').click()")
        tab.until("!document.getElementById('progress').hidden")
        tab.until("!document.getElementById('result').hidden")
        assert tab.ask(text("outcome")).startswith("The new bundle is active."), tab.ask(text("outcome"))
        assert "threshold before" in tab.ask(text("figures"))
        tab.until("document.querySelectorAll('#versions tbody tr').length === 2")
        assert "web" in tab.ask(text("versions"))
        assert tab.ask("document.documentElement.scrollWidth") <= 390
        tab.until("!document.querySelector('#versions tbody button').disabled")
        tab.ask("document.querySelector('#versions tbody button').click()")
        tab.until(f"{text('versions-answer')}.startsWith('Done')")
        tab.until("document.querySelectorAll('#versions tbody tr').length === 3")
        assert tab.ask("document.querySelectorAll('#versions tbody button').length") == 1, (
            "the active one has no way back"
        )
        assert tab.complaints == []
    audit = (tmp_path / "state" / "audit.jsonl").read_text()
    assert all(word in audit for word in ('"recalibrate"', '"rollback"', '"by":"web"'))
