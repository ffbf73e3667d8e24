"""What the page shows of a payload's schema and of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from core.asyncapi.page.limits import limits
from core.asyncapi.page.prose import Block, prose
from core.asyncapi.page.table import Row, rows, type_of

if TYPE_CHECKING:
    from core.asyncapi.page.references import References
    from core.asyncapi.page.words import Words


class Alternative(NamedTuple):
    """One of several models that a payload may be."""

    type: Words
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema of a payload. ``discriminator`` is the field that tells the alternatives apart, if there is one."""

    type: Words
    limits: list[Words]
    description: list[Block]
    discriminator: str | None
    alternatives: list[Alternative]
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Model:
    """A model among the components of the document."""

    name: str
    description: list[Block]
    limits: list[Words]
    rows: list[Row]


def schema_of(schema: Any, references: References) -> Schema:
    """Return what is shown of ``schema``. A list has the rows of its items."""
    whole = references.resolve(schema)
    options = [option for key in ("oneOf", "anyOf") for option in whole.get(key, ())]
    alternatives = [Alternative(type_of(option), rows(option, references)) for option in options]
    return Schema(
        type_of(schema),
        limits(schema, references),
        prose(str(whole.get("description") or "")),
        whole.get("x-routemq-discriminator"),
        [one for one in alternatives if one.rows],
        rows(schema, references) or rows(whole.get("items"), references),
    )


def model_of(name: str, schema: dict[str, Any], references: References) -> Model:
    """Return what is shown of the model ``name``."""
    description = prose(str(schema.get("description") or ""))
    return Model(name, description, limits(schema, references), rows(schema, references))
