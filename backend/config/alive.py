"""`python -m config.alive`: exit 0 if this host's service reports its pools; for what nothing else can probe."""

import socket
import sys

from config.env import Deployment, Queue, read
from poolhouse.reports.store import ReportStore


def main() -> str | None:
    """Look for a live report; give what is wrong, or None."""
    service = read(Deployment).service_name
    reports = ReportStore(read(Queue).url, prefix="poolhouse", ttl_s=1, timeout_s=2).read_all().live
    if any(report.service == service and report.host == socket.gethostname() for report in reports):
        return None
    return f"no report of {service} on {socket.gethostname()}"


if __name__ == "__main__":
    sys.exit(main())
