"""What a fault needs and a machine may lack."""


class UnavailableError(Exception):
    """The fault cannot be made here; the message says what is missing."""
