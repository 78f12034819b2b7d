"""The embedded log that every answer and label goes to."""
