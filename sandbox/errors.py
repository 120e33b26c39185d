"""The sandbox's error."""


class SandboxError(Exception):
    """The sandbox cannot start or run; the text says why, and what to do."""
