"""How right a model version is, once the truth has arrived, from cells that merge."""
