"""Brokers that this process starts or finds: the embedded one, the one in memory, and what answers at an address."""
