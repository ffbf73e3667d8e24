"""The official JSON Schema of AsyncAPI 3.0, from the npm package @asyncapi/specs; projects for the command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from jsonschema import Draft7Validator
from referencing import Registry
from referencing.exceptions import NoSuchResource

from tests.application.conftest import project  # noqa: F401 - a fixture
from tests.support.worker import ROOT

FILE = "3.0.0.json"


def specs() -> Path | None:
    given = os.environ.get("ROUTEMQ_ASYNCAPI_SPECS")
    folder = Path(given) if given else ROOT / "node_modules" / "@asyncapi" / "specs" / "schemas"
    file = folder / FILE
    return file if file.is_file() else None


def nowhere(uri: str) -> NoReturn:
    raise NoSuchResource(uri)


@pytest.fixture(scope="session")
def official() -> Draft7Validator:
    """Return the validator. It looks nothing up outside of its one file."""
    file = specs()
    if file is None:
        reason = f"{FILE} of the npm package @asyncapi/specs is not there: npm install --no-save @asyncapi/specs"
        if os.environ.get("ROUTEMQ_REQUIRE_SPECS"):
            pytest.fail(reason)
        pytest.skip(reason)
    # The types of referencing know its field by another name than its constructor.
    registry = Registry[Any](retrieve=nowhere)  # type: ignore[call-arg]
    return Draft7Validator(json.loads(file.read_text()), registry=registry)
