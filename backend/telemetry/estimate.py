"""Estimates from samples how many chunks an input creates, so that its sender is warned before the load."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa
from django.db import connection

from telemetry.chunks import chunk_facts, chunk_numbers, chunk_warning
from telemetry.formats import BadInput, Columns, Format, Slice, Source

SAMPLED_ROWS = 50_000
"""rows sampled from all over a file, and as many at its end"""
SAMPLES_MAX = 13
"""a prime, so that in a file that repeats a pattern, one part per station, samples fall on different places of it"""
SAMPLES_THAT_SPAN = 4
"""fewer samples, unless they are most of the input, may cover only a part of its time range"""


@dataclass(frozen=True)
class Sample:
    """Consecutive rows, and the chunks that they are in."""

    row_count: int
    chunk_count: int
    first_chunk: int
    last_chunk: int


def estimate_chunks(samples: Sequence[Sample], row_count: int) -> int:
    """Return the estimated chunks of an input, from the density of the samples, limited to the range that they span.

    Args:
        samples: samples from all over the input.
        row_count: rows of the whole input.
    """
    rows = sum(sample.row_count for sample in samples)
    if not rows:
        return 0
    by_density = row_count * sum(sample.chunk_count for sample in samples) / rows
    if len(samples) < SAMPLES_THAT_SPAN and 2 * rows < row_count:
        return round(by_density)
    span = max(sample.last_chunk for sample in samples) - min(sample.first_chunk for sample in samples) + 1
    return round(min(by_density, span))


def sample_file(
    source: Source, written: Format, slices: Sequence[Slice], columns: Columns, width_us: int
) -> list[Sample]:
    """Return samples from all over a file; slices that cannot be read are skipped, the worker reports them."""
    samples = []
    times_alone = replace(columns, labels=(), values=())
    chosen = _evenly(source, written, slices, columns)
    for number, part in enumerate(chosen, start=1):
        # The end of the file is often the end of its time range.
        row_limit = SAMPLED_ROWS if number == len(chosen) else SAMPLED_ROWS // SAMPLES_MAX
        with suppress(BadInput):
            for parsed in written.sample(source, part, times_alone, row_limit):
                numbers = chunk_numbers(parsed.table[columns.time].cast(pa.int64()).to_numpy(), width_us)
                if len(numbers):
                    samples.append(Sample(parsed.table.num_rows, len(numbers), int(numbers[0]), int(numbers[-1])))
    return samples


def _evenly(source: Source, written: Format, slices: Sequence[Slice], columns: Columns) -> Sequence[Slice]:
    """Return slices from all over a file, including its last one; a few large slices are divided first."""
    row_count = sum(part.row_count for part in slices)
    if len(slices) < SAMPLES_MAX and row_count > SAMPLED_ROWS:
        slices = list(written.cut(source, -(-row_count // SAMPLES_MAX), columns))
    step = max(1, -(-len(slices) // SAMPLES_MAX))
    return [*slices[:-1:step], *slices[-1:]]


def chunk_warnings(inputs: Iterable[tuple[Source, Format, Sequence[Slice]]], columns: Columns) -> list[str]:
    """Return warnings about the number of chunks that files create."""
    facts = chunk_facts()
    if not connection.in_atomic_block:  # reading the files may take long; the connection is not needed meanwhile
        connection.close()
    samples: list[Sample] = []
    row_count = 0
    for source, written, slices in inputs:
        samples += sample_file(source, written, slices, columns, facts.interval_us)
        row_count += sum(part.row_count for part in slices)
    warning = chunk_warning(estimate_chunks(samples, row_count), facts)
    return [warning] if warning else []
