"""Who encodes a file's batches: this process, several on this machine, or the actors of a Ray cluster.

Every runner reads the same batches and gives the same results in the same order, so that a run which was begun by one
can be continued by another.
"""
