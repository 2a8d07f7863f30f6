"""How it runs: definitions, partitions, planning, jobs, the command line.

Belongs here: the assembly of the graph and the ways of starting it. Does not belong here:
what an asset computes (`assets/`, `ml/`).
"""
