"""A Dask cluster as calibration sees it: results, or an error that says what to do."""

from __future__ import annotations

import logging
import multiprocessing
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import dask
import distributed
from distributed import Client, Future, LocalCluster

from calibration.engine.cpu_cores import usable_cores
from calibration.errors import ClusterError, SettingError
from calibration.workstation.fit import dask_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

Value = TypeVar("Value")

_CONNECT_S = 15.0
_POLL_S = 2.0
_PATIENCE_S = 60.0
_NOTHING_WRITTEN = "nothing was written"

# Without a dashboard, the scheduler's HTTP server would still take port 8787, which may be in use.
PRIVATE: dict[str, Any] = {
    "protocol": "tcp://",
    "host": "127.0.0.1",
    "dashboard_address": "127.0.0.1:0",
    "scheduler_kwargs": {"dashboard": False},
}


class Cluster:
    """Workers that all see the same images and run the same software as this process.

    Args:
        client: Connected.
        patience_s: How long to wait for workers while there are none.
    """

    def __init__(self, client: Client, patience_s: float = _PATIENCE_S) -> None:
        self._client = client
        self._patience_s = patience_s
        self._workers_seen_s = monotonic()

    def submit(self, function: Callable[..., Value], *arguments: Any) -> Future[Value]:  # noqa: ANN401 - of any function
        """Start a computation; futures among the arguments become their results."""
        with _translated():
            return self._client.submit(function, *arguments, pure=False)

    def result(self, future: Future[Value]) -> Value:
        """Wait for a result, for as long as there are workers.

        Raises:
            ShiftwatchError: Raised by the task.
            ClusterError: The cluster is lost.
        """
        with _translated():
            while not future.done():
                with suppress(distributed.TimeoutError), self._client.as_current():
                    distributed.wait(future, timeout=_POLL_S)
                self._refuse_without_workers()
            result: Value = future.result()
            return result

    def refuse_unfit(self, paths: Sequence[Path]) -> None:
        """Raise ClusterError unless every worker runs this software and sees these files.

        The first, the middle and the last file are checked, with their sizes.
        """
        with _translated():
            self._client.wait_for_workers(1, timeout=self._patience_s)
            self._refuse_other_software()
            checked = (paths[index] for index in (0, len(paths) // 2, -1))
            sizes = {path: path.stat().st_size for path in checked}
            missing = {
                worker: paths for worker, paths in self._client.run(dask_tasks.changed_files, sizes).items() if paths
            }
        if missing:
            found = "; ".join(
                f"{worker} does not see {changed[0]} as it is here" for worker, changed in missing.items()
            )
            raise ClusterError(
                what=f"{len(missing)} workers see other files: {found}",
                remedy=f"share {paths[0].parent} with all workers, under the same path",
            )

    def _refuse_other_software(self) -> None:
        ours = dask_tasks.software()
        try:
            theirs = self._client.run(dask_tasks.software)
        except ImportError as error:
            raise ClusterError(
                what=f"a worker cannot run calibration: {error}", remedy="install shiftwatch with [dask] on all workers"
            ) from error
        others = [
            f"{worker} has {name} {there.get(name)}, here is {version}"
            for worker, there in theirs.items()
            for name, version in ours.items()
            if there.get(name) != version
        ]
        if others:
            raise ClusterError(
                what=f"workers run other software: {'; '.join(others)}",
                remedy="install the same versions on all, since features would differ",
            )

    def _refuse_without_workers(self) -> None:
        """Raise ClusterError if there has been no worker for the whole of the patience."""
        if self._client.scheduler_info()["workers"]:
            self._workers_seen_s = monotonic()
        elif monotonic() - self._workers_seen_s > self._patience_s:
            raise ClusterError(
                what=f"the cluster has had no worker for {self._patience_s:.0f} s; {_NOTHING_WRITTEN}",
                remedy="start workers, and calibrate again",
            )


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect to a cluster; leaving the context releases all that was computed there.

    The address is that of its scheduler, ``tcp://HOST:PORT``; or ``local:N`` for N processes here, ``local`` for one on
    each core, which listen on the loopback interface only.

    Raises:
        SettingError: The address makes no sense.
        ClusterError: No scheduler answers there.
    """
    # The network is part of a task on purpose: scattered data is lost with the worker that holds it.
    limits = {"distributed.admin.large-graph-warning-threshold": "1GB"}
    logging.getLogger("distributed.client").setLevel(
        logging.CRITICAL
    )  # its errors are raised as ClusterError, see below
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(limits))
        if address.partition(":")[0] == "local":
            address = stack.enter_context(_local(address)).scheduler_address
        try:
            client = stack.enter_context(Client(address, timeout=_CONNECT_S, set_as_default=False))
        except (OSError, ValueError) as error:
            raise ClusterError(
                what=f"no Dask scheduler answers at {address}: {error}",
                remedy="start one (dask scheduler), check the address, or give --dask local",
            ) from error
        yield client


def _local(address: str) -> LocalCluster:
    _, _, number = address.partition(":")
    if number and not (number.isdecimal() and int(number)):
        raise SettingError(what=f"--dask {address} makes no sense", remedy="give local, local:2 or tcp://HOST:PORT")
    workers = int(number or usable_cores())
    _require_process_locks()
    try:
        return LocalCluster(n_workers=workers, threads_per_worker=1, **PRIVATE)
    except (OSError, RuntimeError) as error:
        raise ClusterError(
            what=f"{workers} workers cannot be started here: {error}", remedy="give fewer, or leave out --dask"
        ) from error


def _require_process_locks() -> None:
    """Raise ClusterError on a machine where processes cannot share locks, which Dask's own error does not explain."""
    try:
        multiprocessing.Lock()
    except (ImportError, OSError) as error:
        raise ClusterError(
            what=f"processes cannot share locks on this machine, which --dask local needs: {error}",
            remedy="make /dev/shm writable, or start `dask scheduler` and `dask worker --no-nanny` and give their "
            "tcp://HOST:PORT, or leave out --dask",
        ) from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except distributed.KilledWorker as error:
        raise ClusterError(
            what=f"several workers died of the same task: {error}; {_NOTHING_WRITTEN}",
            remedy="give them more memory, or choose a smaller model",
        ) from error
    except (CancelledError, OSError, distributed.TimeoutError) as error:
        raise ClusterError(
            what=f"the cluster is lost ({type(error).__name__}: {' '.join(str(error).split())}); {_NOTHING_WRITTEN}",
            remedy="look at the log of its scheduler, and calibrate again",
        ) from error
