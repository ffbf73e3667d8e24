"""The practical limit: the mqtt5 codec, orjson and COPY of what waits, with nothing between and no objects."""

import asyncio
import os

import asyncpg
import mqtt5
import orjson


class Wire(asyncio.Protocol):
    def __init__(self) -> None:
        self.rest = b""
        self.waiting: list[tuple] = []
        self.packets: list[int] = []
        self.wake = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        view = memoryview(self.rest + data if self.rest else data)
        start, end = 0, len(view)
        while start < end:
            try:
                packet, size = mqtt5.read(view[start:])
            except IndexError:
                break
            start += size
            if type(packet) is mqtt5.PublishPacket:
                payload = orjson.loads(packet.payload)
                device_id = packet.topic.split("/")[1]
                row = (device_id, payload["number"], payload["value"], payload["unit"], payload["sent_at"])
                self.waiting.append(row)
                self.packets.append(packet.packet_id)
        self.rest = bytes(view[start:])
        if self.waiting:
            self.wake.set()


async def main() -> None:
    connection = await asyncpg.connect(os.environ["BENCH_DATABASE"].replace("+asyncpg", ""))
    loop = asyncio.get_running_loop()
    transport, wire = await loop.create_connection(Wire, "127.0.0.1", int(os.environ["BENCH_PORT"]))
    transport.write(mqtt5.ConnectPacket("limit", clean_start=True, keep_alive=600, receive_max=1000).write())
    await asyncio.sleep(0.2)
    transport.write(mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("d/+/data", max_qos=mqtt5.QoS.AT_LEAST_ONCE)]).write())
    columns = ["device_id", "number", "value", "unit", "sent_at"]
    while True:
        await wire.wake.wait()
        wire.wake.clear()
        rows, packets = wire.waiting, wire.packets
        wire.waiting, wire.packets = [], []
        if rows:
            await connection.copy_records_to_table("readings", records=rows, columns=columns)
            transport.write(b"".join([b"\x40\x02" + packet.to_bytes(2, "big") for packet in packets]))


try:
    import uvloop

    uvloop.run(main())
except ImportError:
    asyncio.run(main())
