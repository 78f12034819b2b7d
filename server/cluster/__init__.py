"""Several processes behind one socket, with one event log."""
