"""Connections over the mqtt5 codec: MQTT 5 over TCP, TLS and Unix sockets, the fastest way in."""
