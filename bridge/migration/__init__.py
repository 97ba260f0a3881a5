"""The steps of `bridge.migrate`: what the new index is, its documents, the checks, and the memory of how far it came.

Everything that a migration writes into the new index has version 0, as an external one that is never refused for being
equal. Any other writer's first write, or deletion, gets a higher version, so the engine itself refuses to undo it.
"""
