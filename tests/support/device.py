"""Devices on paho, the client library of others: they answer commands, each as its command says."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode


class Devices:
    """Answers what comes on devices/<id>/commands.

    By MQTT 5 on the response topic, with the correlation data; else on devices/<id>/answers. A command may say how: silent,
    body (the answer's text), after (seconds), twice, correlation (of its own).
    """

    def __init__(self, port: int, version: str = "5") -> None:
        self.messages: list[MQTTMessage] = []
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._subscribed = threading.Event()
        self.paho = Client(
            CallbackAPIVersion.VERSION2, f"devices-{id(self)}", protocol=MQTTv5 if version == "5" else MQTTv311
        )
        self.paho.on_connect = self._on_connect
        self.paho.on_subscribe = lambda *_: self._subscribed.set()
        self.paho.on_message = self._on_message
        self.paho.max_inflight_messages_set(0)
        self.paho.reconnect_delay_set(1, 1)
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        self.wait()

    def wait(self) -> None:
        assert self._subscribed.wait(20)

    def away(self) -> None:
        self._subscribed.clear()

    def _on_connect(
        self, paho: Client, userdata: object, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        paho.subscribe("devices/+/commands", options=SubscribeOptions(1)) if paho.protocol == MQTTv5 else paho.subscribe(
            "devices/+/commands", 1
        )

    def _on_message(self, paho: Client, userdata: object, message: MQTTMessage) -> None:
        command = json.loads(message.payload)
        self.messages.append(message)
        self.heard.append((message.topic, command))
        if command.get("silent"):
            return
        if command.get("after"):
            threading.Thread(target=self._answer, args=(message, command), daemon=True).start()
        else:
            self._answer(message, command)

    def _answer(self, message: MQTTMessage, command: dict[str, Any]) -> None:
        time.sleep(command.get("after", 0))
        body = command.get("body", json.dumps({"echo": command.get("n")}))
        topic, properties = message.topic.replace("/commands", "/answers"), None
        # paho sets each property as an attribute.
        told: Any = message.properties
        asked = getattr(told, "ResponseTopic", None)
        if asked is not None:
            topic, properties = asked, Properties(PacketTypes.PUBLISH)
            properties.CorrelationData = (
                command["correlation"].encode() if "correlation" in command else told.CorrelationData
            )
        for _ in range(2 if command.get("twice") else 1):
            assert self.paho.publish(topic, body, 1, properties=properties).rc is MQTTErrorCode.MQTT_ERR_SUCCESS

    def stop(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()
