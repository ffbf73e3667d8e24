"""What people write by hand: aiomqtt's message iterator, and a SQLAlchemy session for each message."""

import asyncio
import json
import os

import aiomqtt
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


async def main() -> None:
    session_of = async_sessionmaker(create_async_engine(os.environ["BENCH_DATABASE"], pool_size=20), expire_on_commit=False)
    waiting = asyncio.Semaphore(200)

    async def store(message: aiomqtt.Message) -> None:
        try:
            payload = json.loads(message.payload)
            async with session_of() as session:
                session.add(Reading(device_id=str(message.topic).split("/")[1], **payload))
                await session.commit()
        finally:
            waiting.release()

    async with aiomqtt.Client("127.0.0.1", int(os.environ["BENCH_PORT"]), protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("d/+/data", qos=1)
        async with asyncio.TaskGroup() as group:
            async for message in client.messages:
                await waiting.acquire()
                group.create_task(store(message))


asyncio.run(main())
