"""Whatever is called together: rows, results and errors are those of the same calls made one after the other."""

from __future__ import annotations

import asyncio
from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from core.database import ambient
from core.model import Model
from tests.database.models import Meter, Plain

VALUES = st.one_of(st.none(), st.floats(-1e6, 1e6), st.just("no number"))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from("abcdef"), VALUES),
        st.tuples(st.just("upsert"), st.sampled_from("abcdef"), st.floats(-1e6, 1e6)),
        st.tuples(st.just("find"), st.integers(1, 8), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS)
def test_it_is_as_if_each_call_had_run_alone(tmp_path_factory, operations):
    folder = tmp_path_factory.mktemp("gather")
    # Calls of one kind that follow one another are made together.
    rounds = [list(calls) for _, calls in groupby(operations, key=lambda operation: operation[0])]

    async def run(name: str, *, together: bool) -> tuple[list, list]:
        Model.configure(f"sqlite+aiosqlite:///{folder}/{name}.db")
        await ambient.database().create_tables(Plain.metadata)
        results = []
        for calls in rounds:
            if together:
                results += await asyncio.gather(*(call(*one) for one in calls), return_exceptions=True)
            else:
                for one in calls:
                    results += await asyncio.gather(call(*one), return_exceptions=True)
        rows = [(row.serial, row.kwh, row.site) for row in await Model.where(Meter, order_by=Meter.serial)]
        await Model.close()
        return [shown(result) for result in results], rows

    assert asyncio.run(run("together", together=True)) == asyncio.run(run("alone", together=False))


def call(kind, name, value):
    if kind == "create":
        return Model.create(Meter, serial=name, kwh=value)
    if kind == "upsert":
        return Model.upsert(Meter, on=["serial"], serial=name, kwh=value)
    # Which number a row has depends on who came first, which calls made together leave open.
    return Model.exists(Meter, serial="abcdefgh"[name - 1])


def shown(result):
    if isinstance(result, Exception):
        return type(result)
    return (result.serial, result.kwh, result.site) if isinstance(result, Meter) else result
