"""Programs: ``python -m app.commands.NAME``."""
