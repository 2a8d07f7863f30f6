"""Erasing a reader: the list of those erased, and what holds their rows below the lake.

Belongs here: who was erased (as keyed digests), dropping rows from files, versions, and kept drops, and doing so in an
order that a kill cannot spoil. Does not belong here: publishing (`resources.lake`) and printing (`pipeline`).
"""
