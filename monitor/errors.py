"""Everything that can go wrong in the monitor, as one tree.

MonitorError
├── SettingsError        a setting that cannot be used
├── BundleError          a bundle whose manifest or baseline cannot be read
├── SourceError          the log cannot be read, or is not the one the state belongs to
│   └── SourceBusyError  it cannot be read at this moment; trying again may help
├── StateError           the state file cannot be used
├── ServingError         the monitor's own address cannot be listened on
└── QueryError           the client's fault
    ├── UnknownError     no such model, version or comparison
    └── InvalidError     a parameter that cannot be used
"""


class MonitorError(Exception):
    """A failure whose message says what, which one, what was expected and what came."""


class SettingsError(MonitorError):
    """A setting that cannot be used."""


class BundleError(MonitorError):
    """A bundle whose manifest or baseline cannot be read."""


class SourceError(MonitorError):
    """The log cannot be read, or is not the one the state belongs to."""


class SourceBusyError(SourceError):
    """The log cannot be read at this moment."""


class StateError(MonitorError):
    """The state file cannot be used."""


class ServingError(MonitorError):
    """The monitor's own address cannot be listened on."""


class QueryError(MonitorError):
    """A question that the client must change."""


class UnknownError(QueryError):
    """No such model, version or comparison."""


class InvalidError(QueryError):
    """A parameter that cannot be used."""
