"""The page: everything on it, nothing from elsewhere, and nothing that a name or a text could smuggle in."""

from __future__ import annotations

import re
from enum import Enum
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Literal

import pytest
from jinja2 import UndefinedError
from pydantic import BaseModel, ConfigDict, Field, create_model

from core.asyncapi.document import About, describe
from core.asyncapi.page.environment import ENVIRONMENT, FOLDER
from core.asyncapi.page.limits import limits
from core.asyncapi.page.page import page
from core.asyncapi.page.prose import prose
from core.asyncapi.page.references import References
from core.asyncapi.page.words import Piece, code, join
from core.asyncapi.server import Server
from core.context import Context
from core.router import Router
from tests.asyncapi.rich import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.config import JsonDict

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


async def hostile(context: Context[Any]) -> Hostile:
    """<img src=x onerror=alert(1)> and `<script>`.

    - <img src=x onerror=alert(1)>

        <img src=x onerror=alert(1)>
    """
    raise NotImplementedError


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

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(name)
        self.attributes += attributes
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if not {"style", "script"}.intersection(self.open):
            self.said.append(data)

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def macro(template: str, name: str) -> Callable[..., str]:
    """Return a macro of one of the page's templates."""
    found: Callable[..., str] = getattr(ENVIRONMENT.get_template(template).module, name)
    return found


@pytest.fixture(scope="module")
def rich() -> Reader:
    return Reader(page(describe(build(), About("Fleet", "1.2.3", "All devices."), Server("b:8883", password=True))))


def test_it_shows_every_channel_and_model_and_links_lead_somewhere(rich: Reader) -> None:
    document = describe(build(), About("Fleet", "1.2.3"), Server("b:8883"))
    ids = rich.values("id")
    assert len(ids) == len(set(ids))
    assert {f"op-{key}" for key in document["operations"]} <= set(ids)
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= set(ids)
    for link in rich.values("href"):
        assert link.removeprefix("#") in ids


def test_it_says_in_words_what_the_document_holds(rich: Reader) -> None:
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


def test_nothing_is_loaded_from_anywhere(rich: Reader) -> None:
    assert rich.values("src") == []
    assert all(link.startswith("#") for link in rich.values("href"))
    assert set(rich.names) & {"link", "img", "iframe", "object", "base", "form"} == set()
    policy = next(value for value in rich.values("content") if "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_names_and_texts_are_shown_as_they_are_and_never_run() -> None:
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


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"minItems": 1}, "at least 1 item"),
        ({"minItems": 2}, "at least 2 items"),
        ({"maxLength": 1}, "at most 1 character"),
        ({"minLength": 1, "maxLength": 8}, "1 to 8 characters"),
        ({"minProperties": 1, "maxProperties": 1}, "exactly 1 entry"),
        ({"maxItems": 0}, "at most 0 items"),
    ],
)
def test_sizes_are_said_in_english(schema: dict[str, Any], said: str) -> None:
    assert limits(schema, References({})) == [(Piece(said),)]


def test_docstrings_are_paragraphs_lists_and_code() -> None:
    text = "One `a < b`\ntwo.\n\n- first\n  goes on\n- second ``c``\n\n    code <here>\n"
    assert macro("prose.html", "prose")(prose(text)) == (
        "<p>One <code>a &lt; b</code> two.</p><ul><li>first goes on</li><li>second <code>c</code></li></ul>"
        "<pre><code>code &lt;here&gt;\n</code></pre>".replace("\n</code>", "</code>")
    )


def test_elements_escape_what_is_no_markup() -> None:
    words = join(["<", (Piece('"<b>&', "model"),), " ", code("<&>")])
    assert macro("words.html", "words")(words) == (
        '&lt;<a href="#schema-&#34;&lt;b&gt;&amp;">&#34;&lt;b&gt;&amp;</a> <code>&lt;&amp;&gt;</code>'
    )
    assert macro("words.html", "topic")('{"}/<b>') == "<i>{&#34;}</i>/<wbr>&lt;b&gt;"


def with_text(text: str) -> Reader:
    """Return the page of an application that has ``text`` wherever an application can have a text."""
    extra: JsonDict = {"pattern": text, "format": text, "examples": [{text: text}]}
    either: Any = Literal[f"{text}1", f"{text}2"]
    model = create_model(
        "Model",
        __doc__=text,
        __config__=ConfigDict(title=text),
        value=(str, Field(text, alias=text, title=text, description=text, deprecated=True, json_schema_extra=extra)),
        one_of=(either, Field(description=text)),
    )

    async def handler(context: Context[Any]) -> None:
        pass

    handler.__doc__ = f"{text}\n\n{text}\n\n- {text}\n\n    {text}\n"
    handler.__annotations__["return"] = model
    router = Router()
    router.on("a/<x>", handler, schema=model, reply_errors=True)
    router.on("b", handler, schema=list[model], reply="c")
    document = describe(router, About(text, text, text), Server(text, text, path=text, description=text, client_id=text))
    return Reader(page(document))


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        "</style></title></code></pre><img src=x onerror=alert(1)>",
        "\"><svg onload='alert(1)'>",
        "x' onmouseover='alert(1)",
        "<!-- &lt;script&gt; &#60;",
        "{{ 7 * 7 }}{% raw %}{# x #}",
    ],
)
def test_whatever_a_text_is_the_page_has_the_same_elements(text: str) -> None:
    harmless, found = with_text("harmless"), with_text(text)
    assert found.names == harmless.names
    assert [name for name, _ in found.attributes] == [name for name, _ in harmless.attributes]
    # In an example a quotation mark is escaped, as JSON has it.
    said = "".join(found.said).replace('\\"', '"')
    assert said.count(text) == "".join(harmless.said).count("harmless") > 40


def test_templates_escape_everything_but_the_style_and_the_script() -> None:
    sources = [file.read_text() for file in sorted(FOLDER.glob("*.html"))]
    assert re.findall(r"\{\{ (\w+)\|safe \}\}", "".join(sources)) == ["style", "script"]
    assert "".join(sources).count("|safe") == 2
    assert "autoescape" not in "".join(sources)


def test_a_template_that_names_what_is_not_there_fails() -> None:
    with pytest.raises(UndefinedError, match="missing"):
        ENVIRONMENT.from_string("{{ missing }}").render()


def test_an_application_without_schemas_has_a_page() -> None:
    router = Router()
    router.on("a", lambda context: None)
    found = Reader(page(describe(router, About("x", "1"), Server("b:1"))))
    assert "it has no schema" in "".join(found.said)
