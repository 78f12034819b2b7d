"""Waiting inside an event loop for what nobody announces."""

import asyncio
from collections.abc import Callable

DEADLINE_S = 20.0


async def turn() -> None:
    """Returns in the event loop's next turn."""
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition holds; fails the test when it does not in time."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await turn()
