"""HTTP endpoints: inference, rows, feedback, metadata and health."""
