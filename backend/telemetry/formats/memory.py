"""Limits of the memory for reading, as shares of what a worker process may use beyond its idle size.

Half is for what a reader has to hold at once, an Arrow record batch or Parquet pages. The rest is for dictionaries, for
the piece that is being melted, sorted and encoded, and for the overhead of Python and the allocators.
"""

from django.conf import settings

# A cell takes about 100 bytes while its piece is melted and sorted: time, series and value, before and after, and the
# sort order.
CELL_BYTES = 1024


def message_max_bytes() -> int:
    """Return the limit of a record batch, packed and unpacked, or of the pages that are read in parallel."""
    return settings.INGEST_WORKER_MEMORY_BYTES // 2


def page_max_bytes() -> int:
    """Return the limit of a Parquet page, packed and unpacked."""
    return message_max_bytes() // 2


SAMPLE_MAX_BYTES = 32 << 20
"""limit of what is decoded at once for a sample, which may be taken in a process of the web"""


def dictionaries_max_bytes() -> int:
    """Return the limit of all dictionaries of an Arrow file that a record batch may refer to."""
    return settings.INGEST_WORKER_MEMORY_BYTES // 16


def labels_max_bytes() -> int:
    """Return the limit of a piece's labels as text, counting each occurrence."""
    return settings.INGEST_WORKER_MEMORY_BYTES // 64


def metadata_max_bytes() -> int:
    """Return the limit of a header or a footer in the file."""
    return settings.INGEST_WORKER_MEMORY_BYTES // 64


def schema_max_bytes() -> int:
    """Return the limit of Arrow's memory for a header or a footer."""
    return settings.INGEST_WORKER_MEMORY_BYTES // 8


def piece_rows(column_count: int) -> int:
    """Return the number of rows of a piece with `column_count` columns."""
    return max(1, settings.INGEST_WORKER_MEMORY_BYTES // CELL_BYTES // column_count)
