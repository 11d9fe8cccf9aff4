"""One model pass at a time: one thread does all, few wait for it, none for ever."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_WAITING = 16


class Busy(Exception):
    """More wait than may, or it took too long."""


class OneAtATime:
    def __init__(self, timeout_s: float, waiting: int = _WAITING):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._timeout_s, self._most, self._waiting = timeout_s, waiting, 0

    async def run(self, work: Callable[[], T]) -> T:
        """What is given up while it waits is never begun; what has begun goes on to its end, unheard."""
        if self._waiting >= self._most:
            raise Busy(f"{self._waiting} others are waiting: ask again in a moment")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.wrap_future(self._thread.submit(work))
        except TimeoutError:
            remedy = "ask again, or at a smaller view"
            raise Busy(f"no answer within {self._timeout_s:g} s: {remedy}") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
