"""How many chunks an input makes, as far as samples of it tell, so that its sender hears of it before the load."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa
from django.db import connection

from telemetry.chunks import chunk_facts, chunk_numbers, chunk_warning
from telemetry.formats import BadInput, Columns, Format, Slice, Source

SAMPLED_ROWS = 50_000
"""of a file, and as many at its end"""
SAMPLES_MAX = 13
"""a prime, so that they do not all lie at the same place of each station's part of a file"""
SAMPLES_THAT_SPAN = 4
"""fewer, unless they are most of the input, may lie in one part of the time that it covers"""


@dataclass(frozen=True)
class Sample:
    """Neighbouring rows, and the chunks that they are in."""

    row_count: int
    chunk_count: int
    first_chunk: int
    last_chunk: int


def estimate_chunks(samples: Sequence[Sample], row_count: int) -> int:
    """Estimate the chunks of an input: as dense as the samples, and no more than there are in the time that they span.

    Args:
        samples: from all over the input.
        row_count: of the whole input.
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
    """Take samples all over a file; a slice that cannot be read is left to the worker, which says why."""
    samples = []
    times_alone = replace(columns, labels=(), values=())
    chosen = _evenly(source, written, slices, columns)
    for number, part in enumerate(chosen, start=1):
        # The end of the file is often the end of the time that it covers.
        row_limit = SAMPLED_ROWS if number == len(chosen) else SAMPLED_ROWS // SAMPLES_MAX
        with suppress(BadInput):
            for parsed in written.sample(source, part, times_alone, row_limit):
                numbers = chunk_numbers(parsed.table[columns.time].cast(pa.int64()).to_numpy(), width_us)
                if len(numbers):
                    samples.append(Sample(parsed.table.num_rows, len(numbers), int(numbers[0]), int(numbers[-1])))
    return samples


def _evenly(source: Source, written: Format, slices: Sequence[Slice], columns: Columns) -> Sequence[Slice]:
    """Choose slices from all over a file, its last one included; of few large ones, make smaller ones."""
    row_count = sum(part.row_count for part in slices)
    if len(slices) < SAMPLES_MAX and row_count > SAMPLED_ROWS:
        slices = list(written.cut(source, -(-row_count // SAMPLES_MAX), columns))
    step = max(1, -(-len(slices) // SAMPLES_MAX))
    return [*slices[:-1:step], *slices[-1:]]


def chunk_warnings(inputs: Iterable[tuple[Source, Format, Sequence[Slice]]], columns: Columns) -> list[str]:
    """Return what the sender of files should know of the chunks that they make."""
    facts = chunk_facts()
    if not connection.in_atomic_block:  # files are read next, which may take its time: let others have the connection
        connection.close()
    samples: list[Sample] = []
    row_count = 0
    for source, written, slices in inputs:
        samples += sample_file(source, written, slices, columns, facts.interval_us)
        row_count += sum(part.row_count for part in slices)
    warning = chunk_warning(estimate_chunks(samples, row_count), facts)
    return [warning] if warning else []
