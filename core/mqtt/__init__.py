"""What MQTT itself names: a message, its properties, its topic."""
