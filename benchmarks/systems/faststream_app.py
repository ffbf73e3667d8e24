"""FastStream[mqtt]: a subscriber with a pydantic payload, and a session for each message."""

import asyncio
import os

from faststream import FastStream
from faststream.mqtt import MQTTBroker, MQTTMessage, QoS
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Reading(Base):
    __tablename__ = "readings"

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str]
    number: Mapped[int]
    value: Mapped[float]
    unit: Mapped[str]
    sent_at: Mapped[float]


class Payload(BaseModel):
    number: int
    value: float
    unit: str
    sent_at: float


broker = MQTTBroker(f"mqtt://127.0.0.1:{os.environ['BENCH_PORT']}", client_id="faststream", logger=None)
session_of = async_sessionmaker(create_async_engine(os.environ["BENCH_DATABASE"], pool_size=20), expire_on_commit=False)


@broker.subscriber("d/+/data", qos=QoS.AT_LEAST_ONCE, max_workers=20)
async def store(payload: Payload, message: MQTTMessage) -> None:
    async with session_of() as session:
        session.add(Reading(device_id="d", **payload.model_dump()))
        await session.commit()


asyncio.run(FastStream(broker).run())
