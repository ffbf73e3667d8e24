"""The command, as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bootstrap.commands.asyncapi import about, render
from core.errors import StartError
from tests.support.worker import Projects

ROUTER = """
from pydantic import BaseModel
from core.router import Router

class Reading(BaseModel):
    value: float

router = Router()

@router.on("meters/<id>/reading", schema=Reading)
async def reading(context):
    '''Store a reading, in °C.

    First line.
    Second line.
    '''
"""


async def test_yaml_json_and_html_tell_the_same(project: Projects) -> None:
    one = project({"meters": ROUTER}, MQTT_URL="mqtt://me:s3cr3t@broker.example")
    (one.folder / "pyproject.toml").write_text('[project]\nname = "meters"\nversion = "2.0"\ndescription = "All meters."\n')
    code, said = await one.command("asyncapi")
    assert code == 0
    document = yaml.safe_load(said)
    assert document["info"] == {"title": "meters", "version": "2.0", "description": "All meters."}
    assert "s3cr3t" not in said
    assert "Store a reading, in °C." in said
    # Texts of several lines are written as such, and nothing as a reference to what was written before.
    assert "description: |-\n      First line.\n      Second line.\n" in said
    assert "&id" not in said
    code, said = await one.command("asyncapi", "--json", "--output", "a.json")
    assert (code, said) == (0, "")
    assert json.loads((one.folder / "a.json").read_text()) == document
    code, said = await one.command("asyncapi", "--html", "--output", "a.html")
    assert (code, said) == (0, "")
    page = (one.folder / "a.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Store a reading, in °C." in page
    assert "s3cr3t" not in page


async def test_what_cannot_be_written_is_one_line(project: Projects) -> None:
    one = project({"meters": ROUTER})
    code, said = await one.command("asyncapi", "--output", "missing/a.yaml")
    assert (code, said) == (
        1,
        "error: missing/a.yaml cannot be written: No such file or directory; name another file with --output\n",
    )
    assert (await one.command("asyncapi", "--json", "--html"))[0] == 2


def test_a_project_without_a_name_is_called_like_its_folder(tmp_path: Path) -> None:
    assert (about(tmp_path).title, about(tmp_path).version) == (tmp_path.name, "0.1.0")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\ndynamic = ["version"]\n')
    assert (about(tmp_path).title, about(tmp_path).version) == ("x", "0.1.0")
    (tmp_path / "pyproject.toml").write_text("[project\n")
    with pytest.raises(StartError, match=r"pyproject\.toml cannot be read"):
        about(tmp_path)


def test_yaml_keeps_texts_that_look_like_something_else() -> None:
    values = ["on", "1.0", "null", "2026-01-31", "a: b", " x", "- y", "#", "a\nb\n", "trailing \n x", "é", "\t", ""]
    assert yaml.safe_load(render({"a": values}, "yaml")) == {"a": values}
