"""Connections over aiomqtt and paho-mqtt: MQTT 3.1.1 and 5, over TCP, TLS and WebSocket."""
