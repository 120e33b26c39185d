"""The lab's web application: a view for each workload, with the connection strategy of the environment."""

from config.start import start

start("web")

from django.conf import settings  # noqa: E402 - it reads the environment


def configure(*, with_poolhouse: bool) -> None:
    """Configure Django for the lab, before it is set up.

    Args:
        with_poolhouse: time statements and report the pools, as the app does in a project.
    """
    settings.ROOT_URLCONF = "lab.workloads"
    settings.MIDDLEWARE = []
    settings.INSTALLED_APPS = ["poolhouse"] if with_poolhouse else []
    _wait_as_greenlets()


def _wait_as_greenlets() -> None:
    """Under gevent, let psycopg2, whose C code is not patched, wait without blocking the other greenlets.

    See https://www.psycopg.org/docs/advanced.html#support-for-coroutine-libraries. psycopg 3 does not need this.
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
                raise OperationalError(f"expected poll() to return POLL_OK, POLL_READ or POLL_WRITE, got {state!r}")

    extensions.set_wait_callback(wait)
