"""How many threads BLAS has, while several threads of Python want one."""

from threading import Barrier, Thread

from threadpoolctl import threadpool_info

from nrp_onnx.predictor.cores import map_on_cores, one_blas_thread


def _blas_threads() -> list[int]:
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


def test_the_last_to_leave_gives_blas_its_threads_back() -> None:
    before = _blas_threads()
    assert before
    inside, first_left = Barrier(2), Barrier(2)
    seen: list[list[int]] = []

    def other() -> None:
        with one_blas_thread():
            inside.wait()
            first_left.wait()
            seen.append(_blas_threads())

    thread = Thread(target=other)
    thread.start()
    with one_blas_thread():
        inside.wait()
        assert set(_blas_threads()) == {1}
    first_left.wait()
    thread.join()
    assert set(seen[0]) == {1}
    assert _blas_threads() == before


def test_work_on_cores_keeps_its_order_and_has_one_thread_of_blas() -> None:
    assert map_on_cores(lambda item: (item, set(_blas_threads())), range(6)) == [
        (item, {1}) for item in range(6)
    ]
