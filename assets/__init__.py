"""What is materialised, one module a stage, in the order in which data flows.

Belongs here: short bodies that read inputs, call `ml/` and hand the result to the lake. A body imports what it computes
with when it runs: declaring the graph needs no more than NumPy and PyArrow.
Does not belong here: algorithms (`ml/`), storage (`resources/`), jobs and the command line (`pipeline/`).
"""
