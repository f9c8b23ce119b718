"""Eigendecompositions and other work on matrices, one on each core."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import threadpool_limits

_MOST, _MOST_BYTES = 4, 2**31
T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Use one thread of BLAS and LAPACK while the block runs.

    The threads of one eigendecomposition wait for each other tens of thousands of times; on a busy
    machine that made it 8 times slower than on one thread (2560 x 2560, two cores, OpenBLAS). One
    thread each also makes sums independent of the number of cores. The limit holds for the whole
    process: blocks in several threads have to lie within one of the thread that started them.
    """
    with threadpool_limits(1, user_api="blas"):
        yield


@contextmanager
def same_threads(n_threads: int) -> Iterator[None]:
    """Give PyTorch and BLAS ``n_threads`` while the block runs.

    Sums may be taken in another order with another number, so that the last bits differ.
    """
    import torch  # takes seconds, which not all who import this module need

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with threadpool_limits(n_threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def go_at_once(bytes_each: int) -> bool:
    """Whether `map_on_cores` takes several at a time: where four need no more than 2 GiB."""
    return _MOST * bytes_each <= _MOST_BYTES


def map_on_cores(function: Callable[[T], R], items: Iterable[T], bytes_each: int = 0) -> list[R]:
    """``[function(item) for item in items]``, up to four at a time, each on one thread of BLAS.

    NumPy releases the interpreter lock in products and decompositions.

    Args:
        bytes_each: what one needs; where it is too much for four, they go one after the other.
    """
    if not go_at_once(bytes_each):
        return [function(item) for item in items]
    with one_blas_thread(), ThreadPoolExecutor(min(_MOST, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))
