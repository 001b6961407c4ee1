"""Prints how long `fastjac show` takes: from a pointer's event to the maps, and under load.

    python3 tools/in_venv.py python tools/show_latency.py [--clients 50] [--rate 60] [--seconds 10]

The page measures itself in headless Chromium while strokes are drawn: from the beginning of the pointer's
handler to the last write to a canvas, and to the next frame. Then so many clients send so many states a
second each, over the loopback interface; the server and the clients have a core each.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from selenium.webdriver.common.by import By
from websockets.asyncio.client import connect

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.pages import STATE, chromium, description, message, numbers, served, stroke

STROKES, POINTS = 12, 50
WARM = 100  # events, before the browser has compiled the script
MOST_CLIENTS, MOST_SECONDS = 100, 60


def percentiles(name: str, milliseconds: list[float]) -> str:
    """Return a line with the percentiles of times."""
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    return f"{name:34} p50 {p50:6.2f}  p95 {p95:6.2f}  p99 {p99:6.2f} ms  ({len(milliseconds)} times)"


def page(url: str) -> None:
    """Draw strokes and print what the page has measured."""
    with chromium() as driver:
        driver.get(url)
        turns = np.linspace(0, 2 * math.pi, POINTS)
        for number in range(STROKES):
            radius = 0.15 + 0.02 * number
            stroke(driver, list(zip(0.5 + radius * np.sin(turns), 0.5 - radius * np.cos(turns), strict=True)))
            if number % 3 == 2:
                driver.find_element(By.CSS_SELECTOR, ".clear").click()
        time.sleep(1)
        times = driver.execute_script("return document.querySelector('.fastjac').latencies")
    print(percentiles("pointer's handler to last canvas", times["drawn"][WARM:]))
    print(percentiles("pointer's handler to next frame", times["frame"][WARM:]))


async def client(url: str, rate: float, count: int, start: float, times: list[float]) -> None:
    """Send states at a steady rate, whatever the answers do, and note how long each answered one took."""
    address = f"{url.replace('http', 'ws')}live?token={description(url)['token']}"
    x = np.random.default_rng(0).random(64)
    sent = [0.0] * count

    async def read(socket: object) -> None:
        async for answer in socket:  # type: ignore[attr-defined]
            sequence = numbers(answer)[0][0]
            times.append(1000 * (time.perf_counter() - sent[sequence]))

    async with connect(address, origin=url.rstrip("/"), compression=None) as socket:
        reading = asyncio.create_task(read(socket))
        for sequence in range(count):
            await asyncio.sleep(start + sequence / rate - time.perf_counter())
            sent[sequence] = time.perf_counter()
            await socket.send(message(sequence, STATE, 0, x))
        await asyncio.sleep(1)
        reading.cancel()


async def load(url: str, clients: int, rate: float, seconds: float) -> list[float]:
    """Return the milliseconds of all answers to clients that begin one after another."""
    times: list[float] = []
    start = time.perf_counter() + 2
    starts = [start + number / clients / rate for number in range(clients)]
    await asyncio.gather(*(client(url, rate, int(rate * seconds), begin, times) for begin in starts))
    return times


def processor_seconds(process: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=50, help=f"at most {MOST_CLIENTS} (default: 50)")
    parser.add_argument("--rate", type=float, default=60, help="states a second of each (default: 60)")
    parser.add_argument("--seconds", type=float, default=10, help=f"at most {MOST_SECONDS} (default: 10)")
    args = parser.parse_args()
    clients, seconds = min(args.clients, MOST_CLIENTS), min(args.seconds, MOST_SECONDS)
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with served("--port", 0) as (_, url):
        page(url)
    cores = sorted(os.sched_getaffinity(0))
    with served("--port", 0, prefix=["taskset", "-c", str(cores[0])]) as (process, url):
        os.sched_setaffinity(0, cores[1:] or cores)
        before = [processor_seconds(number) for number in (process.pid, os.getpid())]
        times = asyncio.run(load(url, clients, args.rate, seconds))
        after = [processor_seconds(number) for number in (process.pid, os.getpid())]
        server, own = ((b - a) / seconds for a, b in zip(before, after, strict=True))
        sent = clients * int(args.rate * seconds)
        print(percentiles(f"{clients} clients, {args.rate:g} states/s each", times))
        print(f"{len(times) / sent:.1%} of {sent} states answered")
        print(f"processor: server {server:.0%} of a core, clients {own:.0%} of another")
        start = time.perf_counter()
        process.send_signal(signal.SIGINT)
        process.wait()
        print(f"Ctrl-C ended the server in {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
