"""From a received message to its acknowledgement: bounds, order, outcome."""
