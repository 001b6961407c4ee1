"""An extended Kalman filter whose model is a network: value and Jacobian in each tick, in compiled code.

    python examples/control_loop.py

A pendulum swings under a known torque. An encoder measures its angle, with noise. The network has learnt
how the state changes in one tick, and its Jacobian is the linearisation that the filter needs. The whole
loop is one njit function, and numba caches it like any other.
"""

import math
import time

import numpy as np
from numba import njit

import fastjac
from fastjac.embedding import OK, value_and_jacobian

TICK = 0.01  # seconds
NOISE = 0.1  # standard deviation of the encoder, radians
PROCESS = np.array([1e-8, 1e-5])  # variance that a tick adds to angle and speed


def train(rng):
    """Return the network (angle, speed, torque) -> change of (angle, speed) in a tick.

    Its hidden layer is random, and its last layer is a least-squares fit. That suffices for two smooth
    functions.
    """
    x = rng.uniform([-4, -6, -2], [4, 6, 2], (4000, 3))
    w1, b1 = rng.normal(0, [[0.5], [0.05], [0.05]], (3, 64)), rng.uniform(-3, 3, 64)
    hidden = np.column_stack([np.tanh(x @ w1 + b1), np.ones(len(x))])
    angle, speed, torque = x.T
    change = TICK * np.column_stack([speed, torque - 0.2 * speed - 9.81 * np.sin(angle)])
    fitted = np.linalg.lstsq(hidden, change, rcond=1e-6)[0]  # Smaller ones would only fit rounding errors.
    return fastjac.Network([(w1, b1), (fitted[:-1], fitted[-1])], activation="tanh", head="identity")


def swing(rng, ticks):
    """Return angle and speed (ticks, 2), the torque (ticks,) and the encoder's readings (ticks,)."""
    states, torques = np.empty((ticks, 2)), np.sin(TICK * np.arange(ticks))
    angle, speed = 1.0, 0.0
    for tick, torque in enumerate(torques):
        angle, speed = angle + TICK * speed, speed + TICK * (torque - 0.2 * speed - 9.81 * math.sin(angle))
        states[tick] = angle, speed
    return states, torques, states[:, 0] + rng.normal(0, NOISE, ticks)


@njit(cache=True)
def run_filter(handle, torques, readings, process, noise, state, covariance, estimates):
    """Filter all readings into ``estimates`` (ticks, 2); return the first status that is not `OK`."""
    x, change, jac = np.empty(3), np.empty(2), np.empty((2, 3))
    transition, previous = np.empty((2, 2)), np.empty((2, 2))
    for tick in range(readings.size):
        x[0], x[1], x[2] = state[0], state[1], torques[tick]
        status = value_and_jacobian(handle, x, change, jac)
        if status != OK:
            return status
        # Predict: state + change, and transition @ covariance @ transition.T + process.
        previous[:] = covariance
        for i in range(2):
            state[i] += change[i]
            for j in range(2):
                transition[i, j] = jac[i, j] + (i == j)
        for i in range(2):
            for j in range(2):
                covariance[i, j] = process[i] if i == j else 0.0
                for k in range(2):
                    for m in range(2):
                        covariance[i, j] += transition[i, k] * previous[k, m] * transition[j, m]
        # Update with the reading of the angle.
        surprise, variance = readings[tick] - state[0], covariance[0, 0] + noise * noise
        previous[:] = covariance
        for i in range(2):
            state[i] += previous[i, 0] / variance * surprise
            for j in range(2):
                covariance[i, j] -= previous[i, 0] * previous[0, j] / variance
        estimates[tick] = state
    return OK


def main(ticks=20_000):
    """Print the errors of the readings and of the filter, and the time of a tick; return both errors."""
    rng = np.random.default_rng(0)
    handle = train(rng).handle()  # It keeps the network alive.
    states, torques, readings = swing(rng, ticks)
    estimates = np.zeros((ticks, 2))
    # Compile, or read from the cache, before the first tick.
    run_filter(handle, torques[:1], readings[:1], PROCESS, NOISE, np.zeros(2), np.eye(2), estimates[:1])

    start = time.perf_counter()
    status = run_filter(handle, torques, readings, PROCESS, NOISE, np.zeros(2), np.eye(2), estimates)
    seconds = time.perf_counter() - start
    assert status == OK
    settled = slice(ticks // 10, None)
    reading_error = np.sqrt(np.mean((readings - states[:, 0])[settled] ** 2))
    filter_error = np.sqrt(np.mean((estimates - states)[settled, 0] ** 2))
    print(f"angle    error of a reading {reading_error:.4f} rad, of the filter {filter_error:.4f} rad")
    print(f"time     {seconds / ticks * 1e6:.2f} us a tick, the network's value and Jacobian in it")
    return reading_error, filter_error


if __name__ == "__main__":
    main()
