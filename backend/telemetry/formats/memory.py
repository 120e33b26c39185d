"""How much memory reading may take: shares of what a worker's process may use beyond its idle size.

Half is for what a file makes a reader hold at once, an Arrow record batch or Parquet pages; the rest for dictionaries,
for the piece that is being melted, sorted and encoded, and for what Python and the allocators keep.
"""

from django.conf import settings

# A piece's cell takes about 100 bytes while it is melted and sorted: its time, series and value, before and after, and
# the order.
CELL_BYTES = 1024


def message_max_bytes() -> int:
    """Return the bound of a record batch, packed and unpacked, or of the pages that are read side by side."""
    return settings.INGEST_WORKER_MEMORY_BYTES // 2


def page_max_bytes() -> int:
    """Return the bound of a Parquet page, packed and unpacked."""
    return message_max_bytes() // 2


SAMPLE_MAX_BYTES = 32 << 20
"""of what is decoded at once for a sample: it is taken by the process that enqueues, which may be the web"""


def dictionaries_max_bytes() -> int:
    """Return the bound of all dictionaries of an Arrow file that a record batch may refer to."""
    return settings.INGEST_WORKER_MEMORY_BYTES // 16


def labels_max_bytes() -> int:
    """Return the bound of a piece's labels as texts, each as often as it occurs."""
    return settings.INGEST_WORKER_MEMORY_BYTES // 64


def metadata_max_bytes() -> int:
    """Return the bound of a header or a footer, as it is in the file."""
    return settings.INGEST_WORKER_MEMORY_BYTES // 64


def schema_max_bytes() -> int:
    """Return the bound of what Arrow makes of a header or a footer."""
    return settings.INGEST_WORKER_MEMORY_BYTES // 8


def piece_rows(column_count: int) -> int:
    """Return how many rows of so many columns make a piece."""
    return max(1, settings.INGEST_WORKER_MEMORY_BYTES // CELL_BYTES // column_count)
