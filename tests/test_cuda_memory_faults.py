"""What twins and their memory take for a fault: each is done, and told from the others."""

import numpy as np
import pytest

from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.check.twins import run_twin
from mhakit.backends.cuda.tiles.memory import Fault, GlobalMemory, SharedMemory
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.testing import Sizes, draw

THREADS = np.arange(4)


def words(*values):
    return np.array(values, np.uint32)[:, None].view(np.uint8)


def test_shared_memory_tells_each_fault_from_the_others():
    memory = SharedMemory(64)
    with pytest.raises(Fault, match="that nobody wrote"):
        memory.read(4 * THREADS, 4, THREADS)
    memory.write(4 * THREADS, words(1, 2, 3, 4), THREADS)
    assert (memory.read(4 * THREADS, 4, THREADS) == words(1, 2, 3, 4)).all()
    with pytest.raises(Fault, match="a read that no barrier separates"):
        memory.read(4 * THREADS[::-1], 4, THREADS)
    with pytest.raises(Fault, match="another's write"):
        memory.write(4 * THREADS[::-1], words(1, 2, 3, 4), THREADS)
    memory.barrier()
    memory.read(4 * THREADS[::-1], 4, THREADS)
    with pytest.raises(Fault, match="another's read"):
        memory.write(4 * THREADS, words(1, 2, 3, 4), THREADS)
    memory.barrier()
    with pytest.raises(Fault, match="to one place at once"):
        memory.write(0 * THREADS, words(1, 2, 3, 4), THREADS)
    with pytest.raises(Fault, match="at no multiple of 4"):
        memory.read(4 * THREADS + 2, 4, THREADS)
    with pytest.raises(Fault, match="out of bounds of shared memory"):
        memory.read(4 * THREADS + 64, 4, THREADS)
    memory.copy(np.array([48]), np.ones((1, 16), np.uint8), np.array([0]))
    memory.commit()
    with pytest.raises(Fault, match="not waited for"):
        memory.read(np.array([48]), 4, np.array([0]))
    with pytest.raises(Fault, match="where a copy is arriving"):
        memory.write(np.array([48]), words(1), np.array([0]))
    with pytest.raises(Fault, match="before its copies arrived"):
        memory.finish()
    memory.wait(0)
    memory.read(np.array([48]), 4, np.array([0]))
    with pytest.raises(Fault, match="a read that no barrier separates"):
        memory.read(np.array([48]), 4, np.array([1]))
    memory.finish()


def test_global_memory_tells_each_fault_from_the_others():
    memory = GlobalMemory()
    given, out = np.arange(16, dtype=np.float32), np.zeros((4, 4), np.float32)[:, :3]
    place, target = memory.add(given), memory.add(out, output=True)
    assert (memory.read(np.array([place + 8]), 4).view(np.float32) == 2).all()
    with pytest.raises(Fault, match="at an address that is no multiple of 16"):
        memory.read(np.array([place + 8]), 16)
    with pytest.raises(Fault, match="out of bounds of its array"):
        memory.read(np.array([place, place + 64]), 16)
    with pytest.raises(Fault, match="where there is no array"):
        memory.read(np.array([place + 64]), 4)
    with pytest.raises(Fault, match="an array that is only read"):
        memory.write(np.array([place]), words(1))
    for row in range(4):
        memory.write(target + 16 * row + 4 * np.arange(3), words(row, row, row))
        if row < 3:
            with pytest.raises(Fault, match=f"{9 - 3 * row} elements of the output were not"):
                memory.check_written()
    memory.check_written()
    with pytest.raises(Fault, match="written twice"):
        memory.write(np.array([target]), words(1))


def test_scratch_tells_a_read_of_what_nobody_wrote():
    memory, scratch = GlobalMemory(), np.zeros(8, np.float32)
    place = memory.add(scratch, scratch=True)
    memory.write(np.array([place]), np.ones((1, 16), np.uint8))
    memory.read(np.array([place]), 16)
    with pytest.raises(Fault, match="a read of scratch that nobody wrote"):
        memory.read(np.array([place + 16]), 16)
    memory.check_written()


def test_threads_that_go_different_ways_are_a_fault():
    class Divergent(Twin):
        def barrier_any(self, condition):
            super().barrier_any(condition)
            return self.thread < 7

    arrays = draw(Sizes(1, 1, 1, 70, 150, 64, 64), np.float16)
    problem, _ = as_problem(*arrays, causal="bottom_right")
    with pytest.raises(Fault, match="must agree on where they go"):
        run_twin(problem, machine=Divergent)


def test_a_number_that_does_not_fit_32_bits_is_a_fault():
    twin = Twin("float16", 32, 0, 64, GlobalMemory(), {})
    with pytest.raises(Fault, match="does not fit an int32"):
        twin.int32(np.int64(2**31))
    with pytest.raises(TypeError, match="must be of one type"):
        twin.select(np.bool_(True), np.int32(1), np.int64(1))
