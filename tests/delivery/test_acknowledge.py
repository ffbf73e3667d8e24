"""PUBACKs: in order of receipt, many in one write, and only on the connection that brought the message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from core.delivery.acknowledge import Acknowledgements
from core.handling.delivery import Delivery
from core.mqtt.message import Message, Properties
from core.session.identity import Identity, Verdict


def received(acknowledgements: Acknowledgements, *packet_ids: int, connection: int = 1) -> list[Delivery]:
    deliveries = [Delivery(Message(f"t/{packet_id}", b"x", 1, packet_id, connection), None, {}) for packet_id in packet_ids]
    for delivery in deliveries:
        acknowledgements.expect(delivery)
    return deliveries


class Sent:
    def __init__(self) -> None:
        self.writes: list[list[int]] = []

    def __call__(self, messages: Sequence[Message]) -> None:
        self.writes.append([message.packet_id for message in messages])


async def turn() -> None:
    await asyncio.sleep(0)


async def test_acknowledgements_leave_in_order_of_receipt_whatever_order_the_handlers_end_in() -> None:
    sent = Sent()
    acknowledgements = Acknowledgements(sent, Identity())
    one, two, three = received(acknowledgements, 1, 2, 3)
    acknowledgements.settle(three)
    await turn()
    acknowledgements.settle(two)
    await turn()
    assert sent.writes == []
    acknowledgements.settle(one)
    await turn()
    assert sent.writes == [[1, 2, 3]]


async def test_all_that_settle_in_one_turn_leave_in_one_write() -> None:
    sent = Sent()
    acknowledgements = Acknowledgements(sent, Identity())
    deliveries = received(acknowledgements, *range(1, 101))
    for delivery in deliveries[:60]:
        acknowledgements.settle(delivery)
    await turn()
    assert sent.writes == [list(range(1, 61))]


async def test_after_a_lost_connection_nothing_of_it_is_acknowledged() -> None:
    sent = Sent()
    acknowledgements = Acknowledgements(sent, Identity())
    (one,) = received(acknowledgements, 1)
    acknowledgements.void()
    acknowledgements.settle(one)
    await turn()
    assert sent.writes == []


async def test_a_redelivered_message_joins_its_first_run_and_is_acknowledged_once_that_ends() -> None:
    sent = Sent()
    acknowledgements = Acknowledgements(sent, Identity())
    one, two = received(acknowledgements, 1, 2)
    acknowledgements.void()
    acknowledgements.resume(session_present=True)
    assert acknowledgements.rejoin(Message("t/1", b"x", 1, 1, 2, dup=True))
    assert acknowledgements.rejoin(Message("t/2", b"x", 1, 2, 2, dup=True))
    acknowledgements.settle(one)
    acknowledgements.settle(two)
    await turn()
    assert sent.writes == [[1, 2]]
    assert one.message.connection == 2


async def test_one_that_ended_while_there_was_no_connection_is_acknowledged_on_redelivery() -> None:
    sent = Sent()
    acknowledgements = Acknowledgements(sent, Identity())
    (one,) = received(acknowledgements, 7)
    acknowledgements.void()
    acknowledgements.settle(one)
    acknowledgements.resume(session_present=True)
    assert acknowledgements.rejoin(Message("t/7", b"x", 1, 7, 2, dup=True))
    await turn()
    assert sent.writes == [[7]]


async def test_a_reused_identifier_with_another_message_is_a_new_message() -> None:
    acknowledgements = Acknowledgements(Sent(), Identity())
    received(acknowledgements, 7)
    acknowledgements.void()
    acknowledgements.resume(session_present=True)
    assert not acknowledgements.rejoin(Message("t/7", b"another", 1, 7, 2))


async def test_without_the_old_session_nothing_is_a_redelivery() -> None:
    acknowledgements = Acknowledgements(Sent(), Identity())
    received(acknowledgements, 7)
    acknowledgements.void()
    acknowledgements.resume(session_present=False)
    assert not acknowledgements.rejoin(Message("t/7", b"x", 1, 7, 2))


async def test_a_connection_lost_twice_keeps_what_was_never_redelivered_in_between() -> None:
    sent = Sent()
    acknowledgements = Acknowledgements(sent, Identity())
    one, two = received(acknowledgements, 1, 2)
    acknowledgements.void()
    acknowledgements.resume(session_present=True)
    assert acknowledgements.rejoin(Message("t/1", b"x", 1, 1, 2, dup=True))
    acknowledgements.void()
    acknowledgements.resume(session_present=True)
    assert acknowledgements.rejoin(Message("t/1", b"x", 1, 1, 3, dup=True))
    assert acknowledgements.rejoin(Message("t/2", b"x", 1, 2, 3, dup=True))
    acknowledgements.settle(two)
    acknowledgements.settle(one)
    await turn()
    assert sent.writes == [[1, 2]]


async def test_a_message_without_dup_is_a_new_one_and_takes_the_identifier() -> None:
    acknowledgements = Acknowledgements(Sent(), Identity())
    (one,) = received(acknowledgements, 7)
    acknowledgements.void()
    acknowledgements.resume(session_present=True)
    assert not acknowledgements.rejoin(Message("t/7", b"x", 1, 7, 2))
    assert not acknowledgements.rejoin(Message("t/7", b"x", 1, 7, 2, dup=True))
    # It is not recorded under an identifier that is another message's.
    assert one.message.packet_id == 0


async def test_one_redelivery_under_an_identifier_out_of_place_makes_all_of_them_worthless() -> None:
    acknowledgements = Acknowledgements(Sent(), Identity())
    received(acknowledgements, 6, 7, 8)
    acknowledgements.void()
    acknowledgements.resume(session_present=True)
    assert acknowledgements.rejoin(Message("t/6", b"x", 1, 6, 2, dup=True))
    assert not acknowledgements.rejoin(Message("t/8", b"x", 1, 7, 2, dup=True))
    assert not acknowledgements.rejoin(Message("t/8", b"x", 1, 8, 2, dup=True))


PROPERTIES: Properties = {"user_property": [("n", "1")], "message_expiry_interval": 60}


@pytest.mark.parametrize(
    "other",
    [
        Message("t/7", b"x", 1, 7, 2, {"user_property": [("n", "2")], "message_expiry_interval": 60}, dup=True),
        Message("t/7", b"x", 1, 7, 2, {"user_property": [("n", "1")], "content_type": "text/plain"}, dup=True),
        Message("t/7", b"x", 1, 7, 2, dup=True),
        Message("t/7", b"x", 1, 7, 2, PROPERTIES, retain=True, dup=True),
    ],
    ids=["another property", "one more property", "no properties", "retained"],
)
async def test_one_that_a_handler_could_tell_from_it_is_another_message(other: Message) -> None:
    sent = Sent()
    acknowledgements = Acknowledgements(sent, Identity())
    one = Delivery(Message("t/7", b"x", 1, 7, 1, PROPERTIES), None, {})
    acknowledgements.expect(one)
    acknowledgements.void()
    acknowledgements.settle(one)
    acknowledgements.resume(session_present=True)
    assert not acknowledgements.rejoin(other)
    await turn()
    assert sent.writes == []


async def test_the_seconds_until_a_message_expires_are_counted_down() -> None:
    acknowledgements = Acknowledgements(Sent(), Identity())
    acknowledgements.expect(Delivery(Message("t/7", b"x", 1, 7, 1, PROPERTIES), None, {}))
    acknowledgements.void()
    acknowledgements.resume(session_present=True)
    left: Properties = {**PROPERTIES, "message_expiry_interval": 41}
    assert acknowledgements.rejoin(Message("t/7", b"x", 1, 7, 2, left, dup=True))


async def test_what_did_not_come_again_before_new_messages_does_not_come_any_more() -> None:
    acknowledgements = Acknowledgements(Sent(), Identity())
    received(acknowledgements, 6, 7)
    acknowledgements.void()
    acknowledgements.resume(session_present=True)
    assert acknowledgements.rejoin(Message("t/6", b"x", 1, 6, 2, dup=True))
    assert not acknowledgements.rejoin(Message("t/1", b"x", 1, 1, 2))
    acknowledgements.void()
    acknowledgements.resume(session_present=True)
    assert acknowledgements.rejoin(Message("t/6", b"x", 1, 6, 3, dup=True))
    assert not acknowledgements.rejoin(Message("t/7", b"x", 1, 7, 3, dup=True))


async def test_where_the_broker_numbers_anew_nothing_is_a_redelivery() -> None:
    identity = Identity()
    acknowledgements = Acknowledgements(Sent(), identity)
    received(acknowledgements, 7)
    identity._set(Verdict.RENUMBERS)
    acknowledgements.void()
    acknowledgements.resume(session_present=True)
    assert not acknowledgements.rejoin(Message("t/7", b"x", 1, 7, 2, dup=True))
