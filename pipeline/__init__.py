"""Rows: from a source through the stages into committed parts. Start reading at `engine/run.py`."""
