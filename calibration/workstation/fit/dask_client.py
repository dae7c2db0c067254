"""A Dask cluster as calibration sees it: results, or an error that says what to mend."""

from __future__ import annotations

import logging
import os
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import dask
import distributed
from distributed import Client, Future, LocalCluster

from calibration.errors import ClusterError, SettingError
from calibration.workstation.fit import dask_tasks as work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

Value = TypeVar("Value")

_CONNECT_S = 15.0
_LOOK_S = 2.0
_PATIENCE_S = 60.0
_NOTHING_WRITTEN = "nothing was written"

# Without a dashboard, a scheduler's HTTP server would still take port 8787, which another may have.
UNSEEN: dict[str, Any] = {
    "protocol": "tcp://",
    "host": "127.0.0.1",
    "dashboard_address": "127.0.0.1:0",
    "scheduler_kwargs": {"dashboard": False},
}


class Cluster:
    """Workers that all see the same pictures and run the same software as this process.

    Args:
        client: Connected.
        patience_s: How long to wait for workers while there are none.
    """

    def __init__(self, client: Client, patience_s: float = _PATIENCE_S) -> None:
        self._client = client
        self._patience_s = patience_s
        self._workers_seen_s = monotonic()

    def submit(self, function: Callable[..., Value], *arguments: Any) -> Future[Value]:  # noqa: ANN401 - of any function
        """Ask for a result; futures among the arguments become theirs."""
        with _translated():
            return self._client.submit(function, *arguments, pure=False)

    def result(self, future: Future[Value]) -> Value:
        """Wait for a result, for as long as there are workers.

        Raises:
            ShiftwatchError: What the task has raised.
            ClusterError: The cluster is lost.
        """
        with _translated():
            while not future.done():
                with suppress(distributed.TimeoutError), self._client.as_current():
                    distributed.wait(future, timeout=_LOOK_S)
                self._refuse_lonely()
            result: Value = future.result()
            return result

    def refuse_unfit(self, paths: Sequence[Path]) -> None:
        """Raise ClusterError unless every worker runs this software and sees these files.

        Of the files the first, the one in the middle and the last are asked for, with their sizes.
        """
        with _translated():
            self._client.wait_for_workers(1, timeout=self._patience_s)
            self._refuse_other_software()
            sizes = {paths[place]: paths[place].stat().st_size for place in (0, len(paths) // 2, -1)}
            missing = {worker: paths for worker, paths in self._client.run(work.unlike, sizes).items() if paths}
        if missing:
            found = "; ".join(f"{worker} does not see {paths[0]} as it is here" for worker, paths in missing.items())
            raise ClusterError(
                what=f"{len(missing)} workers see other files: {found}",
                remedy=f"share {paths[0].parent} with all workers, under the same path",
            )

    def _refuse_other_software(self) -> None:
        ours = work.software()
        try:
            theirs = self._client.run(work.software)
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

    def _refuse_lonely(self) -> None:
        """Raise ClusterError if all workers have been gone for long."""
        if self._client.scheduler_info()["workers"]:
            self._workers_seen_s = monotonic()
        elif monotonic() - self._workers_seen_s > self._patience_s:
            raise ClusterError(
                what=f"the cluster has had no worker for {self._patience_s:.0f} s; {_NOTHING_WRITTEN}",
                remedy="start workers, and calibrate again",
            )


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of a cluster, which is closed again, and with it what it has asked for.

    Args:
        address: Of its scheduler, as ``tcp://HOST:PORT``; or ``local`` or ``local:N`` for N processes here, one for
            each core without a number, which listen on the loopback interface only.

    Raises:
        SettingError: The address makes no sense.
        ClusterError: Nobody answers there.
    """
    # The network is part of a task on purpose: what is scattered instead is lost with the worker that holds it.
    terms = {"distributed.admin.large-graph-warning-threshold": "1GB"}
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # each of its errors is told as one, see below
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(terms))
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
    workers = int(number or os.cpu_count() or 1)
    try:
        return LocalCluster(n_workers=workers, threads_per_worker=1, **UNSEEN)
    except (OSError, RuntimeError) as error:
        raise ClusterError(
            what=f"{workers} workers cannot be started here: {error}", remedy="give fewer, or leave out --dask"
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
