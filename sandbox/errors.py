"""What can stand in the way of starting the sandbox."""


class SandboxError(Exception):
    """Something is missing or in the way; the text says what, and what to do."""
