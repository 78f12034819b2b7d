"""What a fault needs and a machine may lack."""


class UnavailableError(Exception):
    """The fault cannot be made here; the message says what is missing."""


class ForbiddenError(UnavailableError):
    """The machine has what the fault needs, and does not let this process use it."""
