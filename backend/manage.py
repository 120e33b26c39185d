#!/usr/bin/env python
"""Django's management commands for this deployment."""

import sys

from config.start import start

if __name__ == "__main__":
    start("web" if sys.argv[1:2] == ["runserver"] else "manage")
    from django.core.management import execute_from_command_line

    from poolhouse.display.reasons import exiting_with_reason

    with exiting_with_reason():
        execute_from_command_line(sys.argv)
