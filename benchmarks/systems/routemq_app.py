"""RouteMQ 0.25 from PyPI: Model.create in the handler."""

import os

from routemq.controller import Controller
from routemq.model import Base, Model
from routemq.router import Router
from sqlalchemy.orm import Mapped, mapped_column

from bootstrap.app import Application


class Reading(Base):
    __tablename__ = "readings"

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str]
    number: Mapped[int]
    value: Mapped[float]
    unit: Mapped[str]
    sent_at: Mapped[float]


class Readings(Controller):
    @staticmethod
    async def store(device_id, payload, client):
        await Model.create(Reading, device_id=device_id, **payload)


router = Router()
router.on("d/{device_id}/data", Readings.store, qos=1)
os.environ |= {"MQTT_BROKER": "127.0.0.1", "MQTT_PORT": os.environ["BENCH_PORT"], "LOG_LEVEL": "ERROR"}
application = Application(router=router, env_file="none", show_banner=False, log_to_console=False)
Model.configure(os.environ["BENCH_DATABASE"], pool_size=20)
application.connect()
application.run()
