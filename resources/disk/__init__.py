"""The lake's use of the disk: what is reachable, what it takes, what can go.

Belongs here: reachability from pointers and kept reports, bytes by dataset and stage, collecting what nothing reaches.
Does not belong here: publishing (`resources.lake`), erasing a reader (`resources.erasure`), printing (`pipeline`).
"""
