"""From a received message to its acknowledgement: the bounds on what is in hand, the order, and the end."""
