"""The recorder: the captured log, the wire formats, and the relay between an agent and its provider."""
