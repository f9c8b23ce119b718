"""Runs independent tasks: one after the other in this process, or on a Ray cluster.

A task is a function of this package and one argument that says which files to read and to write. So what
goes between processes is small: images, activations and runs lie in folders that all machines see.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

from nrp_onnx.errors import EngineError, NrpOnnxError, OptionError

ENGINES = ("local", "ray")

#: How often a task whose worker is lost begins again elsewhere.
_RETRIES = 5
_SECONDS = 10

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """Where independent tasks run.

    Attributes:
        remote: whether tasks run in other processes, perhaps on other machines.
        has_gpus: whether these have GPUs.
    """

    remote: bool
    has_gpus: bool

    def map(
        self, function: Callable[[T], R], tasks: Iterable[T], on_gpu: bool = False
    ) -> Iterator[R]:
        """What the function gives for each task, in their order.

        Args:
            on_gpu: give each task a GPU of its own.

        Raises:
            NrpOnnxError, OSError: the first one that a task raises; the other tasks are ended.
            EngineError: if the tasks cannot run there.
        """
        ...


class LocalEngine:
    """This process: each task begins when its result is asked for, and nothing is copied."""

    remote = False
    has_gpus = False

    def map(
        self, function: Callable[[T], R], tasks: Iterable[T], on_gpu: bool = False
    ) -> Iterator[R]:
        return map(function, tasks)


class RayEngine:
    """A Ray cluster, which decides where and when tasks run, and runs those of lost workers again.

    Args:
        address: of the cluster, as Ray writes it (``host:port`` or ``ray://host:port``); ``auto``: one
            that runs on this machine; None: that of RAY_ADDRESS, else a new one on this machine.

    Raises:
        EngineError: if Ray is not installed, or no cluster answers.
    """

    remote = True

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise EngineError(
                "Ray is not installed",
                where="--engine ray",
                fix="Install it: pip install 'nrp-onnx[ray]'.",
            ) from None
        self._ray: Any = ray
        # Without an address, Ray would join any cluster that runs on this machine.
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        if not ray.is_initialized():
            if address not in ("auto", "local"):
                _check_answers(address)
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                raise _no_cluster(address, error) from None
        with_gpus = [x["Resources"] for x in ray.nodes() if x["Resources"].get("GPU", 0) >= 1]
        self.has_gpus = bool(with_gpus)
        # A GPU starves unless as many cores as there are decode images for it.
        shares = [int(machine.get("CPU", 0) / machine["GPU"]) for machine in with_gpus]
        self._cores_of_a_gpu = max(1, min(shares, default=1))

    def map(
        self, function: Callable[[T], R], tasks: Iterable[T], on_gpu: bool = False
    ) -> Iterator[R]:
        ray = self._ray
        run = ray.remote(_call).options(
            name=_name(function), num_cpus=self._cores_of_a_gpu if on_gpu else 1,
            num_gpus=int(on_gpu), max_retries=_RETRIES,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        # What a function is bound to goes to each machine once.
        shared = ray.put(function)
        waiting = [run.remote(shared, task) for task in tasks]
        return self._results(waiting)

    def _results(self, waiting: list[Any]) -> Iterator[Any]:
        ray = self._ray
        waiting.reverse()
        try:
            # A task that has ended, by an error too, is not to be cancelled below: Ray aborts the
            # process where a task is cancelled while its answer is being taken in.
            while waiting:
                yield ray.get(waiting.pop())
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, NrpOnnxError | OSError):
                raise error.cause from None
            raise EngineError(
                "a task failed on a worker",
                where="--engine ray",
                found=f"{type(error.cause).__name__}: {error.cause}",
                fix="Workers need this version of nrp-onnx and its packages.",
            ) from None
        except ray.exceptions.RayError as error:
            raise EngineError(
                f"a task lost its worker more than {_RETRIES} times, or the cluster is gone",
                where="--engine ray",
                found=str(error).splitlines()[0],
                fix="Look at `ray status`, and run this again: what is finished is kept.",
            ) from None
        finally:
            if waiting:
                _, unfinished = ray.wait(waiting, num_returns=len(waiting), timeout=0)
                for task in unfinished:
                    ray.cancel(task, force=True)


def open_engine(name: str, address: str | None = None) -> Engine:
    """The engine that ``--engine`` and ``--ray-address`` name.

    Raises:
        OptionError: if there is no such engine, or an address for the local one.
        EngineError: if Ray is not installed, or no cluster answers.
    """
    if name not in ENGINES:
        raise OptionError(
            "no such engine", where="--engine", expected=" or ".join(ENGINES), found=repr(name)
        )
    if name == "ray":
        return RayEngine(address)
    if address is not None:
        raise OptionError(
            "only Ray has an address",
            where="--ray-address",
            expected="--engine ray beside it",
            found=f"--engine {name}",
        )
    return LocalEngine()


def _call(function: Callable[[T], R], task: T) -> R:
    return function(task)


def _name(function: Any) -> str:
    inner = function.func if isinstance(function, partial) else function
    return str(getattr(inner, "__name__", "task")).strip("_")


def _check_answers(address: str) -> None:
    """Ask for a connection first: Ray itself takes a minute or more to give up."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> EngineError:
    return EngineError(
        "no Ray cluster answers there",
        where=f"--ray-address {address}",
        expected="host:port of a head node, or ray://host:port",
        found=str(error).split(". ")[0] or type(error).__name__,
        fix="Start one with `ray start --head`, or leave --ray-address out to use this machine.",
    )
