"""How many threads BLAS has while work is done on all cores."""

import threading

from threadpoolctl import threadpool_info

from nrp_onnx.threads import map_on_cores


def _blas_threads() -> list[int]:
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


def test_work_on_cores_keeps_its_order_and_has_one_thread_of_blas() -> None:
    before = _blas_threads()
    assert before
    assert map_on_cores(lambda item: (item, set(_blas_threads())), range(6)) == [
        (item, {1}) for item in range(6)
    ]
    assert _blas_threads() == before


def test_what_is_too_large_for_four_goes_one_after_the_other() -> None:
    def thread(_: int) -> int:
        return threading.get_ident()

    assert set(map_on_cores(thread, range(3), bytes_each=2**30)) == {threading.get_ident()}
    assert threading.get_ident() not in map_on_cores(thread, range(3), bytes_each=2**29)
