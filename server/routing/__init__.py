"""Which version answers: the route document, assignment, and the store of routes."""
