from __future__ import annotations

import ctypes

import numpy as np
import pytest

from llm_run.core.ops.float_rows import FloatRows, flat


def read(rows: FloatRows, count: int, width: int) -> np.ndarray:
    """What a C function finds at the address."""
    return np.array((ctypes.c_float * (count * width)).from_address(rows.address)).reshape(count, width)


def test_gathered_rows_are_those_that_numpy_gathers(random):
    table, rows = random(50, 7), FloatRows(7)
    for places in ([3], [0, 49, 3, 3], [8]):
        rows.gather(flat(table), places)
        np.testing.assert_array_equal(read(rows, len(places), 7), table[places])


def test_an_array_becomes_the_first_rows(random):
    rows = FloatRows(5)
    for values in (random(1, 5), random(9, 5), random(4, 5)):
        rows.put(values)
        np.testing.assert_array_equal(read(rows, len(values), 5), values)


def test_the_address_stays_until_there_are_more_rows_than_ever(random):
    table, rows = flat(random(20, 6)), FloatRows(6)
    rows.gather(table, range(8))
    before = rows.address
    for count in (1, 8, 5):
        rows.gather(table, range(count))
        assert rows.address == before


@pytest.mark.parametrize("place", [20, 1000])
def test_a_row_beyond_the_table_is_an_error_and_no_rubbish(random, place):
    with pytest.raises(ValueError, match="different structures"):
        FloatRows(6).gather(flat(random(20, 6)), [3, place])


def test_memory_that_ctypes_gave_is_a_table_too(random):
    values, rows = random(4, 3), FloatRows(3)
    memory = (ctypes.c_float * 12)(*values.ravel().tolist())
    rows.gather(flat(np.ctypeslib.as_array(memory)), [2, 1])
    np.testing.assert_array_equal(read(rows, 2, 3), values[[2, 1]])


@pytest.mark.parametrize("array", [np.zeros([2, 3]), np.zeros([4, 6], np.float32)[:, ::2]], ids=["float64", "strided"])
def test_only_floats_side_by_side_are_a_table(array):
    with pytest.raises(AssertionError):
        flat(array)
