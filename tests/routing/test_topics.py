"""Topics, filters and patterns; the tree is held against a matcher that is MQTT 5, 4.7, read aloud."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import TopicError
from core.mqtt.topics import check_filter, check_topic, covers, matches, parse
from core.routing.tree import Tree

LEVELS = ["", "a", "b", "$a", "a.b", "1", "-2", "2.5", "x y", str(uuid.UUID(int=7))]
TOPICS = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=5).map("/".join).filter(bool)
FILTERS = (
    st.tuples(
        st.lists(st.sampled_from([*LEVELS, "+", "+"]), max_size=4),
        st.sampled_from([[], ["#"], ["+"]]),
    )
    .map(lambda parts: "/".join([*parts[0], *parts[1]]))
    .filter(bool)
)
KINDS: dict[str, Callable[[str], bool]] = {
    "str": lambda level: True,
    "int": lambda level: re.fullmatch(r"-?\d+", level, re.ASCII) is not None,
    "float": lambda level: re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", level, re.ASCII) is not None,
    "uuid": lambda level: re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", level, re.IGNORECASE) is not None,
}


def found(tree: Tree, topic: str) -> tuple[int, dict[str, Any]]:
    """Return what ``tree`` finds for ``topic``, which must be something."""
    taken = tree.find(topic)
    assert taken is not None
    return taken


def takes(levels: list[str], topic: list[str]) -> bool:
    """Say whether a filter, or a pattern, takes a topic; one level after the other."""
    if not levels:
        return not topic
    first, rest = levels[0], levels[1:]
    if first == "#":  # 4.7.1.2: any number of levels, none included
        return True
    if not topic:
        return False
    if first == "<path:p>":  # the same, but there must be something to name
        return True
    if first != "+" and not first.startswith("<"):  # 4.7.3: compared character by character
        return first == topic[0] and takes(rest, topic[1:])
    kind = "str" if first == "+" else first[1:].partition(":")[0]
    return KINDS[kind](topic[0]) and takes(rest, topic[1:])


def naive(pattern: str, topic: str) -> bool:
    levels = pattern.split("/")
    if topic.startswith("$") and (levels[0] in {"+", "#"} or levels[0].startswith("<")):  # 4.7.2
        return False
    return takes(levels, topic.split("/"))


@st.composite
def patterns(draw: st.DrawFn) -> str:
    levels = draw(st.lists(st.sampled_from([*LEVELS, "+", "<str:>", "<int:>", "<float:>", "<uuid:>"]), max_size=4))
    levels += draw(st.sampled_from([[], ["#"], ["<path:p>"], ["a"]]))
    named = [level[:-1] + f"p{n}>" if level.endswith(":>") else level for n, level in enumerate(levels)]
    return "/".join(named) or "#"


@given(FILTERS, TOPICS)
def test_a_filter_takes_what_the_specification_says(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == naive(topic_filter, topic)


@given(st.lists(patterns(), min_size=1, max_size=12), st.lists(TOPICS, min_size=1, max_size=8))
def test_the_tree_finds_the_first_pattern_that_takes_the_topic(texts: list[str], topics: list[str]) -> None:
    tree = Tree()
    for text in texts:
        tree.add(parse(text))
    for topic in topics:
        expected = next((number for number, text in enumerate(texts) if naive(text, topic)), None)
        taken = tree.find(topic)
        assert (None if taken is None else taken[0]) == expected
        if taken is not None:
            parsed = parse(texts[taken[0]])
            assert list(taken[1]) == list(parsed.names)


@given(FILTERS, FILTERS, TOPICS)
def test_a_filter_that_covers_another_takes_all_its_topics(wide: str, narrow: str, topic: str) -> None:
    if covers(wide, narrow) and naive(narrow, topic):
        assert naive(wide, topic)


@given(FILTERS, FILTERS)
def test_a_filter_that_covers_no_other_leaves_a_topic_out(wide: str, narrow: str) -> None:
    if covers(wide, narrow):
        return
    # A topic of the narrow filter's own shape, with levels that no filter here names, shows it; or its parent does.
    sample = ["z" if level == "+" else "z/z/z/z/z/z" if level == "#" else level for level in narrow.split("/")]
    witnesses = ["/".join(sample)] + (["/".join(sample[:-1])] if narrow.endswith("/#") else [])
    witnesses += ["/".join([*sample[:-1], "z"])] if narrow.endswith("#") else []
    assert any(witness and naive(narrow, witness) and not naive(wide, witness) for witness in witnesses)


@given(st.lists(patterns(), min_size=1, max_size=8), patterns(), st.lists(TOPICS, max_size=8))
def test_what_the_tree_says_is_covered_never_wins(texts: list[str], text: str, topics: list[str]) -> None:
    tree = Tree()
    for one in texts:
        tree.add(parse(one))
    cover = tree.cover(parse(text))
    if cover is not None:
        for topic in topics:
            assert not naive(text, topic) or naive(cover.text, topic)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("+/#", "#"), ("<path:x>", "#"), ("+/#", "<path:x>"), ("a/+/#", "a/<path:x>"), ("#", "+/#")],
)
def test_patterns_that_end_in_all_levels_cover_each_other_where_they_take_the_same(earlier: str, later: str) -> None:
    tree = Tree()
    tree.add(parse(earlier))
    assert tree.cover(parse(later)) is not None


@pytest.mark.parametrize(("earlier", "later"), [("a/+/#", "a/#"), ("a/<path:x>", "a/#"), ("<int:n>/#", "#")])
def test_patterns_that_end_in_all_levels_leave_what_they_do_not_take(earlier: str, later: str) -> None:
    tree = Tree()
    tree.add(parse(earlier))
    assert tree.cover(parse(later)) is None


def test_parameters_are_converted() -> None:
    tree = Tree()
    tree.add(parse("d/<int:n>/{float:f}/<uuid:u>/{s}/<path:rest>"))
    _, params = found(tree, f"d/-12/2.5/{uuid.UUID(int=7)}/x y/a/b//c")
    assert params == {"n": -12, "f": 2.5, "u": uuid.UUID(int=7), "s": "x y", "rest": "a/b//c"}


@pytest.mark.parametrize("level", ["1_0", " 1", "+1", "1.0", "٣", "", "0x1", "1" * 200])
def test_what_is_no_int_is_not_taken_for_one(level: str) -> None:
    tree = Tree()
    tree.add(parse("<int:n>"))
    assert tree.find(f"{level}") is None or level == ""


def test_a_dot_is_a_dot() -> None:
    tree = Tree()
    tree.add(parse("a.b/<x>"))
    assert tree.find("a.b/1") is not None
    assert tree.find("aXb/1") is None


def test_a_reserved_topic_is_not_for_a_leading_wildcard() -> None:
    tree = Tree()
    for text in ("#", "+/x", "<a>/x", "$SYS/#"):
        tree.add(parse(text))
    assert found(tree, "$SYS/x")[0] == 3
    assert tree.find("$other/x") is None


def test_a_hash_takes_its_parent_and_a_path_does_not() -> None:
    tree = Tree()
    tree.add(parse("a/<path:p>"))
    assert tree.find("a") is None
    tree.add(parse("a/#"))
    assert found(tree, "a")[0] == 1
    assert found(tree, "a/b")[0] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must not be empty"),
        ("a\0b", "NUL"),
        ("a/b+/c", "whole level"),
        ("a/#/b", "must be the last"),
        ("a/<path:p>/b", "must be the last"),
        ("dev-<id>/x", "not a whole parameter"),
        ("<id>x", "not a whole parameter"),
        ("<id", "not a whole parameter"),
        ("{id>", "not a whole parameter"),
        ("<>", "cannot be the name of a parameter"),
        ("<int:>", "cannot be the name of a parameter"),
        ("<2x>", "cannot be the name of a parameter"),
        ("<bool:x>", "no converter 'bool'. There are str, int, float, uuid, path"),
        ("<a>/<a>", "'a' stands in it more than once"),
        ("x" * 70_000, "65,535"),
        ("\ud800", "UTF-8"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(TopicError, match=re.escape(said)) as raised:
        parse(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "x" * 70_000])
def test_a_topic_that_cannot_be_published_on_is_refused(topic: str) -> None:
    with pytest.raises(TopicError):
        check_topic(topic)


@pytest.mark.parametrize("topic_filter", ["", "a/b#", "#/a", "a+", "a/+b/c"])
def test_a_filter_that_cannot_be_is_refused(topic_filter: str) -> None:
    with pytest.raises(TopicError):
        check_filter(topic_filter)


class CountingDict(dict[str, Any]):
    looks = 0

    def get(self, *arguments: Any) -> Any:
        CountingDict.looks += 1
        return super().get(*arguments)


@pytest.mark.parametrize("number", [10, 10_000])
def test_a_look_up_visits_as_many_nodes_however_many_routes_there_are(number: int) -> None:
    tree = Tree()
    for n in range(number):
        tree.add(parse(f"site-{n}/devices/<id>/data"))
    node = tree._root
    node.literals = CountingDict(node.literals)
    middle = node.literals["site-7"]
    middle.literals = CountingDict(middle.literals)
    CountingDict.looks = 0
    assert found(tree, "site-7/devices/x/data")[0] == 7
    assert CountingDict.looks == 2


def test_many_overlapping_wildcards_do_not_multiply() -> None:
    tree = Tree()
    for depth in range(60):
        tree.add(parse("/".join(["a"] * depth + ["+"] * (60 - depth) + ["end"])))
    assert tree.find("/".join(["a"] * 60 + ["other"])) is None
    assert found(tree, "/".join(["a"] * 60 + ["end"]))[0] == 0
