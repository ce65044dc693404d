"""HTTP: one Flask blueprint for each dialect."""
