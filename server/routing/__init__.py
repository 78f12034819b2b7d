"""Which version answers: the route document, its changes, and assignment. Pure."""
