"""Reads the log, joins the truth, and says whether a model still sees, and is right about, its world."""
