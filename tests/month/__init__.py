"""A month of operation, and six weeks of backfill, played through the command line and a real daemon.

`__main__` is the month; `backfill` compares a backfill with single runs. Does not hold unit tests.
"""
