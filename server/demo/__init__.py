"""A year of real flights, scored, monitored and compared."""
