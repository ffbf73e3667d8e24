"""Overlapping topic filters are found, and only those."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.mqtt.topics import covers, matches
from core.router import Router
from core.routing.overlaps import overlapping

LEVELS = ["a", "b", "$s"]
TOPICS = ["/".join(levels) for depth in (1, 2, 3, 4) for levels in product(LEVELS, repeat=depth)]
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, "#"] if rest else levels),
    st.lists(st.sampled_from([*LEVELS, "+"]), min_size=1, max_size=3),
    st.booleans(),
)


@given(st.lists(FILTERS, max_size=6, unique=True))
def test_it_finds_what_topics_show(topic_filters: list[str]) -> None:
    kept = [one for one in topic_filters if not any(covers(other, one) for other in topic_filters if other != one)]
    shown: set[str] = set()
    for one, other in combinations(kept, 2):
        if any(matches(one, topic) and matches(other, topic) for topic in TOPICS):
            shown |= {one, other}
    assert overlapping(kept) == shown


@pytest.mark.parametrize(
    ("patterns", "identified"),
    [
        (["a/+/c", "a/b/+", "x/+"], ["a/+/c", "a/b/+"]),
        (["a/#", "+/b"], ["+/b", "a/#"]),
        (["a/+/c", "a/+/d"], []),
        (["a/b", "a/#"], []),
        (["$SYS/#", "+/x"], []),
    ],
)
def test_overlapping_subscriptions_have_identifiers(patterns: list[str], identified: list[str]) -> None:
    router = Router()
    for pattern in patterns:
        router.on(pattern, lambda context: None)
    found = {subscription.topic_filter: subscription.identifier for subscription in router.subscriptions()}
    assert sorted(name for name, identifier in found.items() if identifier is not None) == identified
    assert len({identifier for identifier in found.values() if identifier}) == len(identified)
    again = {subscription.topic_filter: subscription.identifier for subscription in router.subscriptions()}
    assert found == again


def test_ten_thousand_filters_that_have_nothing_in_common_take_no_time() -> None:
    assert overlapping(f"v1/site-{number}/+/data" for number in range(10_000)) == set()
