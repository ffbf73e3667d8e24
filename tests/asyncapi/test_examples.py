"""Examples that are made of schemas are valid, and patterns have texts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from core.asyncapi.regex_sample import sample
from core.asyncapi.schema_example import Unmakeable, examples


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 5}, 5),
        ({"type": "integer", "default": 7}, 7),
        ({"type": "integer", "examples": [9, 10]}, 9),
        ({"type": "integer", "minimum": 10}, 10),
        ({"type": "integer", "exclusiveMinimum": 10, "multipleOf": 4}, 12),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "number", "exclusiveMaximum": 0}, -0.5),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1}, 0.05),
        ({"type": "number", "multipleOf": 0.25, "minimum": 7.1}, 7.25),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "minLength": 6}, "texttt"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "uniqueItems": True}, ["a", "b"]),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True}, ["text", "text2"]),
        ({"type": "array", "items": [{"type": "integer"}, {"type": "null"}], "minItems": 2}, [1, None]),
        ({"type": ["null", "string"]}, "text"),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"type": "object", "patternProperties": {"^x\\d$": {"type": "integer"}}}, {"x0": 1}),
        ({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2}, {"name": 1, "name2": 1}),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
    ],
)
def test_examples_by_keyword(schema: dict[str, Any], expected: object) -> None:
    (made, *_), _ = examples(schema, {})
    assert made == expected
    Draft7Validator(schema).validate(made)


def test_a_model_that_must_hold_itself_has_no_example() -> None:
    inner = {"$ref": "#/components/schemas/A"}
    components = {"A": {"type": "object", "properties": {"a": inner}, "required": ["a"]}}
    with pytest.raises(Unmakeable):
        examples(inner, components)
    components["A"]["required"] = []
    assert examples(inner, components) == ([{}], False)


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={
            "minimum": st.integers(-100, 0),
            "exclusiveMinimum": st.integers(-100, 0),
            "maximum": st.integers(20, 100),
            "exclusiveMaximum": st.integers(20, 100),
            "multipleOf": st.sampled_from([1, 2, 3, 5, 10]),
        },
    )
)
def test_numbers_keep_within_their_limits(schema: dict[str, Any]) -> None:
    (made,), _ = examples(schema, {})
    Draft7Validator(schema).validate(made)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[A-Z]{3}-\d{4}$",
        r"^(on|off)$",
        r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$",
        r"^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$",
        r"^(?P<year>\d{4})-(?P<month>\d\d)$",
        r"^(?!x)[a-z]+$",
        r"^v\d+(\.\d+)*$",
        r"\A\w+\Z",
        r"[\]\-]+",
        r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
        "",
    ],
)
def test_patterns_have_texts(pattern: str) -> None:
    text = sample(pattern, 1)
    assert text is not None
    assert re.search(pattern, text)


@pytest.mark.parametrize(
    "pattern",
    ["(", "[", "(?", "a{", r"(a)\1x(?(1)b|c)", "^a{9999}$", "^(((a{99}){99}){99}){99}$", "[[a]", "[^\\s\\S]", "\\"],
)
def test_a_pattern_that_is_none_or_too_hard_has_none(pattern: str) -> None:
    text = sample(pattern)
    assert text is None or re.search(pattern, text)
