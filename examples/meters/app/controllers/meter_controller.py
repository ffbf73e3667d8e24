"""Stores the readings of meters, and switches their relays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete

from app.models.meter import Meter
from app.models.reading import Reading
from app.payloads import MeterReading, Switch
from core.context import Context
from core.controller import Controller
from core.model import Model
from core.periodic import every
from core.request import request

KEEP = timedelta(days=365)
TIMEOUT = 2.0
"""Seconds that a meter may take to switch its relay."""


class MeterController(Controller):
    async def store(self, context: Context[MeterReading]) -> None:
        """Store a reading of a meter."""
        serial, reading = context["params"]["serial"], context["payload"]
        await Model.upsert(Meter, on=["serial"], serial=serial, last_seen=context["received_at"])
        await Model.create(Reading, serial=serial, **reading.model_dump())

    async def switch(self, context: Context[Switch]) -> dict[str, Any]:
        """Let a meter switch its relay, and answer with the state that it reports."""
        serial, wanted = context["params"]["serial"], context["payload"].relay
        answer = await request(f"meters/{serial}/commands", {"relay": wanted}, timeout=TIMEOUT)
        await Model.upsert(Meter, on=["serial"], serial=serial, relay=answer["relay"])
        return {"serial": serial, "relay": answer["relay"]}

    @every("1d")
    async def forget_old_readings(self) -> None:
        """Delete readings that are older than a year."""
        async with Model.transaction() as session:
            await session.execute(delete(Reading).where(Reading.taken_at < datetime.now(UTC) - KEEP))
