"""Running tasks here, or on an executor that may lose its workers."""

from __future__ import annotations

import pickle
import traceback
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from ..errors import ShardError
from ..linalg.checks import check_count
from .tasks import ShardTask


class Executor(Protocol):
    """What runs functions elsewhere: of `concurrent.futures`, Dask, mpi4py, loky."""

    def submit(self, fn: Any, /, *args: Any) -> Any:
        """Have a function called, and return a future with `result` and `cancel`."""


class WorkerTraceback(Exception):  # noqa: N818 - the cause of an error, no error of its own
    """Where an error came up in a worker."""

    def __str__(self) -> str:
        """Return the traceback."""
        return f"\n{self.args[0]}"


def run_tasks(
    tasks: Sequence[ShardTask], executor: Executor | None = None, retries: int = 2
) -> Iterator[Any]:
    """Run tasks, and yield their parts in order.

    Parameters
    ----------
    tasks
        The tasks.
    executor
        Anything with ``submit(function, *arguments)`` that returns a future, such as a
        `concurrent.futures.ProcessPoolExecutor` that spawns, or a `distributed.Client` of Dask.
        None runs one after another here.
    retries
        How often a task is submitted again whose worker was lost. What the task itself raises is
        raised here, at once.

    Raises
    ------
    ShardError
        If a task does not come to its end.
    TypeError
        If the executor has no ``submit``.
    """
    check_count("retries", retries, 0)
    if executor is None:
        yield from (task.run() for task in tasks)
        return
    if not callable(getattr(executor, "submit", None)):
        message = (
            "Argument `executor` must have `submit(function, *arguments)`. Received: "
            f"{type(executor).__name__}. Pass a ProcessPoolExecutor, or a Client of Dask."
        )
        raise TypeError(message)
    futures: list[Any] = []
    try:
        for task in tasks:
            futures.append(_submitted(executor, task))
        for number, task in enumerate(tasks):
            yield _result(executor, task, futures, number, retries)
            futures[number] = None  # so that what the future has can go
    finally:
        for future in filter(None, futures):
            future.cancel()


def _submitted(executor: Executor, task: ShardTask) -> Any:
    try:
        # The text is new each time, or Dask would take the result of an earlier call for this one.
        return executor.submit(_outcome, task, uuid.uuid4().hex)
    except Exception as error:  # noqa: BLE001 - each engine has errors of its own
        return _Failed(error)


class _Failed:
    """What stands for a future where nothing could be submitted."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def result(self) -> Any:
        raise self._error

    def cancel(self) -> None:
        """Do nothing."""


def _result(
    executor: Executor, task: ShardTask, futures: list[Any], number: int, retries: int
) -> Any:
    for attempt in range(retries + 1):
        if attempt:
            futures[number] = _submitted(executor, task)
        try:
            part, error, text = futures[number].result()
        except Exception as lost:  # noqa: BLE001 - the task's own errors are results
            failure = lost
            continue
        if error is not None:
            raise error from WorkerTraceback(text)
        return part
    message = (
        "Argument `executor` must bring every task to its end. Received: "
        f"{type(executor).__name__}, which lost task {task.place} of {task.total} "
        f"{retries + 1} times, the last time with {type(failure).__name__}: {failure} "
        "Parts that are kept in a folder (`path=`) are not computed again: run it again with a "
        "new executor. Tasks are pickled: pass data as arrays, paths or functions of a module."
    )
    raise ShardError(message) from failure


def _outcome(task: ShardTask, _: str) -> tuple[Any, Exception | None, str]:
    """Return what a task gives, or what it raises, which tells it from what an engine raises."""
    try:
        return task.run(), None, ""
    except Exception as error:  # noqa: BLE001 - raised where the result is taken
        text = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001 - an error of TensorFlow, for one
            return None, ShardError(f"{type(error).__name__}: {error}"), text
        return None, error, text
