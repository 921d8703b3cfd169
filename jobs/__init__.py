"""Flags: one file a command, and what the commands share. Start reading at `cli/app.py`."""
