"""Where things live and run: dataset source, lake, DuckDB engine, text encoder, GPU, tracker.

Belongs here: access to storage, devices and services. Does not belong here: the science (`ml/`),
what is materialised (`assets/`) or how it runs (`pipeline/`).
"""
