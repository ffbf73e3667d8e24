"""make: files that pass everything as they come, and what it refuses."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from bootstrap.commands.make import Kind, Names, make
from core.errors import ScaffoldError
from tests.support.worker import MAIN, ROOT, clean_environment

PYTEST = (
    "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\npythonpath = .\nfilterwarnings = error\n"
)
LINTERS = [name for name in ("ruff", "mypy") if importlib.util.find_spec(name) is None]


def python(folder: Path, *arguments: str) -> tuple[int, str]:
    environment = clean_environment() | {"MYPYPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    return done.returncode, done.stdout + done.stderr


def made(root: Path, *things: str) -> list[str]:
    said: list[str] = []
    for thing in things:
        kind, _, name = thing.partition(" ")
        make(Kind(kind), name, said.append, root)
    return said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a file of each kind, made alone, and others that use each other."""
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "pytest.ini").write_text(PYTEST)
    made(tmp_path, *(f"{kind} Plain" for kind in ("test", "router", "middleware", "controller")))
    made(tmp_path, *(f"{kind} meter-reading" for kind in ("model", "controller", "router", "test")))
    made(tmp_path, *(f"{kind} Pump" for kind in ("controller", "router", "test")))
    return tmp_path


async def test_what_is_made_runs_and_passes_its_own_tests(folder: Path) -> None:
    sources = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.py")}
    assert set(sources) == {
        "main.py",
        *(f"app/{name}__init__.py" for name in ("", "controllers/", "models/", "routers/", "middleware/")),
        *(f"app/controllers/{name}_controller.py" for name in ("plain", "meter_reading", "pump")),
        *(f"app/routers/{name}.py" for name in ("plain", "meter_reading", "pump")),
        *(f"tests/test_{name}.py" for name in ("plain", "meter_reading", "pump")),
        "app/models/meter_reading.py",
        "app/middleware/plain.py",
    }
    assert "await Model.create(MeterReading" in sources["app/controllers/meter_reading_controller.py"]
    assert "MeterReadingController.handle, qos=1" in sources["app/routers/meter_reading.py"]
    assert "row.value == 21.5" in sources["tests/test_meter_reading.py"]
    code, said = await asyncio.to_thread(python, folder, "-m", "pytest", "-q", "tests")
    assert code == 0, said
    assert "3 passed" in said


@pytest.mark.skipif(bool(LINTERS), reason=f"not installed: {', '.join(LINTERS)}")
async def test_what_is_made_is_clean(folder: Path) -> None:
    config = str(ROOT / "pyproject.toml")
    both = f"src = ['.', '{ROOT}']"
    assert python(folder, "-m", "ruff", "check", "--config", config, "--config", both, "app", "tests")[0] == 0
    assert python(folder, "-m", "ruff", "format", "--check", "--config", config, "app", "tests")[0] == 0
    code, said = await asyncio.to_thread(
        python, folder, "-m", "mypy", "--config-file", config, "--cache-dir", str(folder / ".mypy"), "app"
    )
    assert code == 0, said


def test_the_command_says_what_to_do_next_and_overwrites_nothing(folder: Path) -> None:
    code, said = python(folder, "main.py", "make", "model", "FlowRate")
    assert code == 0
    assert said.splitlines()[0] == "made app/models/flow_rate.py"
    assert "make controller flow_rate" in said
    before = (folder / "app/models/flow_rate.py").read_text()
    code, said = python(folder, "main.py", "make", "model", "flow_rate")
    assert (code, said) == (
        1,
        "error: app/models/flow_rate.py exists already and is not changed; choose another name, or remove the file first\n",
    )
    assert (folder / "app/models/flow_rate.py").read_text() == before
    assert python(folder, "main.py", "make", "thing", "x")[0] == 2
    assert python(folder, "main.py", "make", "model", "class")[0] == 1


def test_a_table_of_another_model_and_columns_of_ones_own_are_seen(tmp_path: Path) -> None:
    made(tmp_path, "model MeterReading")
    with pytest.raises(ScaffoldError, match=r"meter_reading\.py has the table meter_readings already"):
        made(tmp_path, "model meter_readings")
    file = tmp_path / "app/models/meter_reading.py"
    file.write_text(file.read_text().replace("    value: Mapped", "    kwh: Mapped"))
    made(tmp_path, "controller MeterReading")
    controller = tmp_path / "app/controllers/meter_reading_controller.py"
    assert "Model.create" not in controller.read_text()
    controller.write_text(controller.read_text().replace("async def handle", "async def ingest"))
    made(tmp_path, "router MeterReading")
    assert "MeterReadingController.ingest" in (tmp_path / "app/routers/meter_reading.py").read_text()


@pytest.mark.parametrize(
    ("kind", "given", "name", "class_", "table"),
    [
        ("model", "MeterReading", "meter_reading", "MeterReading", "meter_readings"),
        ("model", "meter-reading", "meter_reading", "MeterReading", "meter_readings"),
        ("controller", "HTTPMeterController", "http_meter", "HttpMeter", "http_meters"),
        ("test", "test_battery", "battery", "Battery", "batteries"),
        ("model", "Rtl433Box", "rtl433_box", "Rtl433Box", "rtl433_boxes"),
        ("model", "status", "status", "Status", "statuses"),
        ("middleware", "AuditMiddleware", "audit", "Audit", "audits"),
    ],
)
def test_names_come_in_any_case(kind: str, given: str, name: str, class_: str, table: str) -> None:
    assert Names.of(Kind(kind), given) == Names(name, class_, table)


@pytest.mark.parametrize("given", ["", "1x", "class", "none", "a/b", "../x", "x.y", "Zähler", "$x", "Base", "x" * 61])
def test_what_is_no_name_is_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(ScaffoldError):
        made(tmp_path, f"model {given}")
    assert list(tmp_path.iterdir()) == []
