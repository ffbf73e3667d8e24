"""The page: everything on it, nothing from elsewhere, and nothing that a name or a text could smuggle in."""

from __future__ import annotations

from enum import Enum
from html.parser import HTMLParser

import pytest
from pydantic import BaseModel, ConfigDict, Field

from core.asyncapi.document import About, describe
from core.asyncapi.page.html import prose, tag
from core.asyncapi.page.page import page
from core.asyncapi.server import Server
from core.router import Router
from tests.asyncapi.rich import build

VOID = {"meta", "input", "wbr"}
BAD = "<img src=x onerror=alert(1)>"


class Word(Enum):
    ONE = "</script><script>alert(1)</script>"


class Hostile(BaseModel):
    """<img src=x onerror=alert(1)> of a model, `<b>` too."""

    model_config = ConfigDict(json_schema_extra={"examples": [{BAD: "</pre>" + BAD}]})

    one: int = Field(alias=BAD, description=BAD)
    word: Word = Field(Word.ONE, title=BAD)
    text: str = Field(BAD, pattern="<img>|.*")


async def hostile(context) -> Hostile:
    """<img src=x onerror=alert(1)> and `<script>`.

    - <img src=x onerror=alert(1)>

        <img src=x onerror=alert(1)>
    """


class Reader(HTMLParser):
    """Reads a page; fails where elements are not closed as they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if not {"style", "script"}.intersection(self.open):
            self.said.append(data)

    def values(self, name):
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def rich() -> Reader:
    return Reader(page(describe(build(), About("Fleet", "1.2.3", "All devices."), Server("b:8883", password=True))))


def test_it_shows_every_channel_and_model_and_links_lead_somewhere(rich):
    document = describe(build(), About("Fleet", "1.2.3"), Server("b:8883"))
    ids = rich.values("id")
    assert len(ids) == len(set(ids))
    assert {f"op-{key}" for key in document["operations"]} <= set(ids)
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= set(ids)
    for link in rich.values("href"):
        assert link.removeprefix("#") in ids


def test_it_says_in_words_what_the_document_holds(rich):
    said = " ".join("".join(rich.said).split())
    for part in (
        "Fleet 1.2.3",
        "All devices.",
        "a user name and a password",
        "Store one reading.",
        "What was measured.",
        "more than -273.15",
        '"celsius" or "kelvin"',
        "matches ^[A-Z]{3}-\\d{4}$",
        "1 to 8 items",
        "Position or null",
        "Told apart by kind",
        "handled in lists of up to 500",
        "acknowledged on receipt and never tried again",
        "Of messages with the same key (id) only the first is handled",
        "Messages with the same {u} are handled one after the other",
        "No guarantee",
        "Publish to devices/a1/ask/42",
        "Answered on devices/a1/answers/42",
        "Sent to the Response Topic of the request",
    ):
        assert part in said


def test_nothing_is_loaded_from_anywhere(rich):
    assert rich.values("src") == []
    assert all(link.startswith("#") for link in rich.values("href"))
    assert set(rich.names) & {"link", "img", "iframe", "object", "base", "form"} == set()
    policy = next(value for value in rich.values("content") if "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_names_and_texts_are_shown_as_they_are_and_never_run():
    router = Router()
    router.on("a&b\"'/<x>/$", hostile, schema=Hostile, name=f'"{BAD}', reply_errors=True)
    one = Server(f"b:1{BAD}", f"{BAD}", path=BAD, description=BAD, client_id=BAD)
    text = page(describe(router, About(BAD, BAD, BAD), one))
    found = Reader(text)
    assert "img" not in found.names
    assert found.names.count("script") == found.names.count("style") == 1
    assert [key for key, _ in found.attributes if key.startswith("on")] == []
    said = "".join(found.said)
    # Title, version and description, host, model, field, docstring, example, and more.
    assert said.count(BAD) > 10
    assert '"</pre>' in said


def test_docstrings_are_paragraphs_lists_and_code():
    text = "One `a < b`\ntwo.\n\n- first\n  goes on\n- second ``c``\n\n    code <here>\n"
    assert prose(text) == (
        "<p>One <code>a &lt; b</code> two.</p><ul><li>first goes on</li><li>second <code>c</code></li></ul>"
        "<pre><code>code &lt;here&gt;\n</code></pre>".replace("\n</code>", "</code>")
    )


def test_elements_escape_what_is_no_markup():
    assert tag("a", "<", tag("b", "&"), href='"x', hidden=True) == '<a href="&quot;x" hidden>&lt;<b>&amp;</b></a>'


def test_an_application_without_schemas_has_a_page():
    router = Router()
    router.on("a", lambda context: None)
    found = Reader(page(describe(router, About("x", "1"), Server("b:1"))))
    assert "it has no schema" in "".join(found.said)
