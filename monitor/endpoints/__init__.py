"""What the monitor answers over HTTP: findings, health, metrics and the status page."""
