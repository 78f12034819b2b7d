"""``tiltyard log``: the log of events read, checked, exported and, in parts, forgotten."""
