"""The chunks that a transaction may touch, dividing a batch by time, and warnings about too many chunks."""

from itertools import pairwise

import numpy as np
import pytest

from telemetry.chunks import HOUR_US, ChunkFacts, Edges, LockTable, chunk_begins, chunk_numbers, chunk_warning
from telemetry.estimate import Sample, estimate_chunks
from worker.survey import EARLIEST_US, LATEST_US, Portion, portions, span_of, windows

DAY_US = 24 * HOUR_US
NO_EDGES = Edges(np.empty(0, np.int64), np.empty(0, np.int64))


@pytest.mark.parametrize(
    ("settings", "processes", "chunks"),
    [((256, 40, 0), 2, 320), ((64, 100, 0), 2, 200), ((64, 100, 100), 2, 400), ((64, 100, 0), 16, 25)],
)
def test_all_workers_together_leave_three_quarters_of_the_locks(
    settings: tuple[int, int, int], processes: int, chunks: int
) -> None:
    locks = LockTable(*settings)
    assert locks.chunks_at_once(processes) == chunks
    assert chunks * processes * 4 <= locks.size / 4


def test_a_transaction_may_always_touch_a_chunk() -> None:
    assert LockTable(10, 10, 0).chunks_at_once(100) == 1


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_distinct_chunks_are_counted_close_together_and_far_apart(step: int) -> None:
    times = np.array([5, 5 + step, 5 + step, 7 * step, -3 * step], dtype=np.int64) * DAY_US + 1
    assert chunk_numbers(times, DAY_US).tolist() == sorted({5, 5 + step, 7 * step, -3 * step})
    assert chunk_numbers(times[:0], DAY_US).tolist() == []


def test_existing_chunks_keep_their_interval_and_new_ones_have_the_current_one() -> None:
    existing = Edges(np.array([10, 11]) * DAY_US, np.array([11, 12]) * DAY_US)
    times = np.array([0, 9, 10, 11, 12, 29, 30]) * DAY_US + 5
    begins = chunk_begins(times, existing, 30 * DAY_US)
    assert (begins // DAY_US).tolist() == [0, 0, 10, 11, 12, 12, 30]
    assert (chunk_begins(times, NO_EDGES, 30 * DAY_US) // DAY_US).tolist() == [0] * 6 + [30]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_portions_cover_every_time_once_with_no_more_chunks_than_allowed(limit: int) -> None:
    rows_by_chunk = {chunk * DAY_US: abs(chunk) + 1 for chunk in (-800, -3, 0, 1, 2, 50, 51)}
    found = portions(rows_by_chunk, EARLIEST_US, limit)
    assert (found[0].begin_us, found[-1].end_us) == (EARLIEST_US, LATEST_US)
    assert all(one.end_us == other.begin_us for one, other in pairwise(found))
    held = [portion.holds(np.array(sorted(rows_by_chunk))) for portion in found]
    assert np.sum(held, axis=0).tolist() == [1] * 7
    assert max(np.sum(held, axis=1)) <= limit
    assert [portion.row_count for portion in found] == [
        sum(np.array([rows_by_chunk[chunk] for chunk in sorted(rows_by_chunk)])[mask]) for mask in held
    ]


def test_a_batch_of_which_everything_is_loaded_has_a_last_portion_without_rows() -> None:
    assert portions({}, 5, 10) == [Portion(5, LATEST_US, 0)]


def test_windows_fill_the_memory_limit_and_a_larger_portion_is_alone() -> None:
    found = [Portion(number, number + 1, rows) for number, rows in enumerate((3, 4, 30, 5, 5, 1))]
    gathered = list(windows(found, 10))
    assert [[portion.row_count for portion in window] for window in gathered] == [[3, 4], [30], [5, 5], [1]]
    assert span_of(gathered[0]) == Portion(0, 2, 7)


def facts(interval_h: int = 24) -> ChunkFacts:
    return ChunkFacts(interval_h * HOUR_US, interval_h * HOUR_US, LockTable(256, 40, 0))


def test_few_samples_estimate_the_density_and_many_also_the_range() -> None:
    one = Sample(1000, 1000, 0, 999)
    assert estimate_chunks([one], 54_787) == 54_787
    stations = [Sample(1000, 1000, first, first + 999) for first in (0, 20_000, 53_787, 30_000)]
    assert estimate_chunks(stations, 1_000_000) == 54_787
    assert estimate_chunks([Sample(1000, 2, 0, 1)] * 5, 1_000_000) == 2
    assert estimate_chunks([], 10) == 0


@pytest.mark.parametrize(("chunks", "hours", "fitting"), [(54_787, 720, "1,826"), (3_000, 168, "429")])
def test_a_warning_names_the_chunks_and_an_interval_that_fits(chunks: int, hours: int, fitting: str) -> None:
    warning = chunk_warning(chunks, facts())
    assert warning is not None
    assert f"up to {chunks:,} chunks of 24 hours" in warning
    assert f"READING_CHUNK_INTERVAL_HOURS={hours} would create about {fitting}" in warning


def test_daily_chunks_of_a_few_years_cause_no_warning() -> None:
    assert chunk_warning(2_560, facts()) is None
