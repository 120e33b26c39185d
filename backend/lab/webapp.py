"""The lab's web: a view for each workload, on the strategy that the environment names, and nothing else around it."""

from config.start import start

start("web")

from django.conf import settings  # noqa: E402 - it reads the environment


def configure(*, with_poolhouse: bool) -> None:
    """Settle what a request passes through; before Django is set up.

    Args:
        with_poolhouse: time statements and report the pools, as the app does in a project.
    """
    settings.ROOT_URLCONF = "lab.workloads"
    settings.MIDDLEWARE = []
    settings.INSTALLED_APPS = ["poolhouse"] if with_poolhouse else []
    _wait_as_greenlets()


def _wait_as_greenlets() -> None:
    """Under gevent, let psycopg2, which is C and not patched, wait without stopping the other greenlets.

    As https://www.psycopg.org/docs/advanced.html#support-for-coroutine-libraries has it. psycopg 3 needs nothing.
    """
    from gevent.monkey import is_module_patched

    if not is_module_patched("socket"):
        return
    from gevent.socket import wait_read, wait_write
    from psycopg2 import OperationalError, extensions

    def wait(connection: "extensions.connection") -> None:
        while (state := connection.poll()) != extensions.POLL_OK:
            if state == extensions.POLL_READ:
                wait_read(connection.fileno())
            elif state == extensions.POLL_WRITE:
                wait_write(connection.fileno())
            else:
                raise OperationalError(f"libpq waits for something unknown: {state!r}")

    extensions.set_wait_callback(wait)
