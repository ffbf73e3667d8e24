"""Ways to a broker: one contract, one module for each library behind it."""
