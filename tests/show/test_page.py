"""The page in a real browser: a person draws, moves sliders and asks, and sees what the network says.

The oracle knows the page's colours, and nothing else of its script: it counts the drawing's pixels itself,
and has the Jacobian from `reference`.
"""

import contextlib
import re
import time
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

import fastjac
from fastjac import reference
from fastjac.commands.inputs import read_network
from support.pages import chromium, served, stroke

DIGITS = Path(fastjac.__file__).with_name("data") / "digits.npz"
THREE = [
    (0.32, 0.22),
    (0.5, 0.14),
    (0.66, 0.25),
    (0.6, 0.4),
    (0.45, 0.47),
    (0.62, 0.53),
    (0.68, 0.7),
    (0.5, 0.85),
]
THREE.append((0.3, 0.78))
SEVEN = [(0.3, 0.2), (0.7, 0.2), (0.45, 0.85)]
LIGHT = {"paper": (255, 255, 255), "ink": (26, 26, 30)}
DARK = {"paper": (23, 23, 27), "ink": (236, 236, 240)}
LIGHT |= {"negative": (11, 92, 171), "zero": (244, 244, 244), "positive": (184, 74, 0)}
DARK |= {"negative": (93, 178, 255), "zero": (31, 31, 36), "positive": (255, 147, 64)}
PIXELS = """
const canvas = document.querySelectorAll(arguments[0])[arguments[1]];
const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
return [canvas.height, canvas.width, Array.from(image.data)];
"""


@pytest.fixture(scope="module")
def browser(installed_browser):
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def digits():
    with served("--port", 0) as (_, url):
        yield url


@pytest.fixture
def page(browser, digits):
    yield visit(browser, digits)
    assert_no_errors(browser)


def visit(driver, url):
    driver.get_log("browser")  # of pages before
    driver.get(url)
    eventually(lambda: match("^Output", text(driver, ".times")))
    return driver


def find(driver, selector, number=0):
    return driver.find_elements(By.CSS_SELECTOR, selector)[number]


def text(driver, selector, number=0):
    return find(driver, selector, number).text


def texts(driver, selector):
    return [element.text for element in driver.find_elements(By.CSS_SELECTOR, selector)]


def assert_no_errors(driver, allowed="(?!)"):
    """Assert that the console is empty but for advice on reading pixels, as only these tests do."""
    messages = [entry["message"] for entry in driver.get_log("browser")]
    assert [text for text in messages if not re.search(f"getImageData|{allowed}", text)] == []


def pixels(driver, selector, number=0):
    height, width, data = driver.execute_script(PIXELS, selector, number)
    return np.reshape(data, (height, width, 4))[:, :, :3]


def cells(driver, colours=LIGHT):
    """Return the drawing, 0 and 1."""
    seen = pixels(driver, ".ink")
    inked = (seen == colours["ink"]).all(axis=2)
    assert np.array_equal(seen[~inked], np.broadcast_to(colours["paper"], seen[~inked].shape))
    return inked.astype(float)


def shares(first, end, scale):
    """Return the share of each of 32 cells in each of 8 blocks where cells first to end are in the middle."""
    edges = (first + end) / 2 + (4 * np.arange(9) - 16) / scale
    return np.diff(np.clip(edges[:, None] - np.arange(32), 0, 1), axis=0) * scale / 4


def counted(drawing, fit=True):
    """Return the inputs (64,) of a drawing (32, 32), and the matrix (64, 1024) that makes them from it."""
    rows, columns = np.flatnonzero(drawing.any(axis=1)), np.flatnonzero(drawing.any(axis=0))
    down = across = np.kron(np.eye(8), np.full((1, 4), 1 / 4))
    if fit and rows.size:
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        scale = min(32 / height, 4)
        down = shares(rows[0], rows[-1] + 1, scale)
        across = shares(columns[0], columns[-1] + 1, min(scale, 20 / width))
    matrix = np.kron(down, across)
    return matrix @ drawing.ravel(), matrix


def expected_maps(net, drawing, fit=True):
    x, matrix = counted(drawing, fit)
    y, jac = reference.value_and_jacobian(x, net.layers)
    return y, (jac @ matrix).reshape(-1, 32, 32)


def coloured(values, colours):
    t = values[..., None]
    zero, negative, positive = (np.array(colours[name]) for name in ("zero", "negative", "positive"))
    return zero + np.where(t > 0, positive - zero, negative - zero) * abs(t)


def assert_shows(driver, net, colours=LIGHT, fit=True):
    """Assert that probabilities, class, scale and every pixel of every map become those of the network."""
    drawing = eventually(lambda: cells(driver, colours))
    y, maps = expected_maps(net, drawing, fit)
    probabilities, _ = expected_maps(read_network(DIGITS), drawing, fit)
    scale = np.abs(maps).max()

    def shown():
        found = [float(value) for value in texts(driver, ".output > .number:nth-child(3)")]
        np.testing.assert_allclose(found, probabilities, atol=6e-4)
        assert text(driver, ".output.best .name") == str(np.argmax(probabilities))
        assert float(text(driver, ".high")) == pytest.approx(scale, rel=6e-3)
        assert float(text(driver, ".low")) == pytest.approx(-scale, rel=6e-3)
        for m, values in enumerate(maps):
            np.testing.assert_allclose(
                pixels(driver, ".map canvas", m), coloured(values / scale, colours), atol=2
            )

    eventually(shown)
    return y, maps


def eventually(condition, seconds=30):
    end = time.monotonic() + seconds
    while True:
        try:
            return condition()
        except AssertionError:
            if time.monotonic() > end:
                raise


@pytest.fixture
def net():
    """Return the digits network."""
    return read_network(DIGITS)


@pytest.fixture
def logits(net):
    return net.replace(head="identity")


# --- a drawing


@pytest.mark.parametrize("kind", ["mouse", "pen", "touch"])
def test_a_stroke_changes_class_and_maps_to_what_the_network_says(page, logits, kind):
    stroke(page, THREE, kind)
    drawn = cells(page)
    y, maps = assert_shows(page, logits)
    assert np.argmax(y) == 3
    find(page, ".clear").click()
    assert not cells(page).any()
    _, cleared = assert_shows(page, logits)
    stroke(page, SEVEN, kind)
    assert not np.array_equal(cells(page), drawn)
    y, maps_of_seven = assert_shows(page, logits)
    assert np.argmax(y) == 7
    assert len({np.round(values, 6).tobytes() for values in (maps, cleared, maps_of_seven)}) == 3


@pytest.mark.parametrize(("row", "cells_wide"), [(16, 4), (16.5, 3)])
def test_a_line_is_three_to_four_cells_wide(page, row, cells_wide):
    stroke(page, [(0.2, row / 32), (0.8, row / 32)])
    assert set(cells(page).sum(axis=0)[10:22]) == {cells_wide}


def test_the_maps_can_be_of_probabilities(page, net, logits):
    stroke(page, THREE)
    assert_shows(page, logits)
    find(page, "input[name=view]", 0).click()
    assert_shows(page, net)


def test_a_drawing_can_be_taken_as_it_is(page, logits):
    stroke(page, [(0.1, 0.1), (0.3, 0.4)])
    _, fitted = assert_shows(page, logits)
    find(page, ".fit").click()
    _, plain = assert_shows(page, logits, fit=False)
    assert not np.allclose(fitted, plain)


def test_the_eraser_takes_ink_away(page, logits):
    stroke(page, [(0.2, 0.5), (0.8, 0.5)])
    before = cells(page)
    find(page, ".erase").click()
    stroke(page, [(0.5, 0.3), (0.5, 0.7)])
    after = cells(page)
    assert 0 < after.sum() < before.sum()
    assert not after[:, 16].any()
    assert_shows(page, logits)


def test_keys_draw(page, logits):
    find(page, ".ink").send_keys(Keys.SPACE)
    dot = cells(page)
    assert dot[16, 16] and dot.sum() < 20
    find(page, ".ink").send_keys(Keys.ARROW_UP * 8)
    assert np.array_equal(cells(page), dot)
    find(page, ".ink").send_keys(Keys.SHIFT, Keys.ARROW_RIGHT * 9)
    assert cells(page)[8, 16:25].all()
    assert_shows(page, logits)
    find(page, ".ink").send_keys(Keys.DELETE)
    assert not cells(page).any()


def test_a_pixel_pointed_at_tells_forecast_and_truth(page, logits):
    stroke(page, THREE)
    x, _ = counted(cells(page))
    assert_shows(page, logits)
    ActionChains(page).move_to_element(find(page, ".map canvas", 3)).perform()
    eventually(lambda: match("^row .* exact", text(page, ".change")))
    row, column = map(int, re.match(r"row (\d), column (\d) from", text(page, ".change")).groups())
    n = 8 * (row - 1) + column - 1
    changed = x.copy()
    changed[n] = 1 if x[n] < 0.5 else 0
    before, jac = reference.value_and_jacobian(x, logits.layers)
    exact = reference.value_and_jacobian(changed, logits.layers)[0] - before
    expected = np.stack([jac[:, n] * (changed[n] - x[n]), exact], axis=1)

    def shown():
        found = [line.split(" / ") for line in texts(page, ".output > .number:nth-child(5)")]
        np.testing.assert_allclose(np.array(found, float), expected, atol=6e-4)

    eventually(shown)
    assert abs(expected[:, 0] - expected[:, 1]).max() > 0.01
    frame, ink = find(page, ".frame").rect, find(page, ".ink").rect
    assert ink["x"] < frame["x"] < ink["x"] + ink["width"]
    ActionChains(page).move_to_element(find(page, "h1")).perform()
    eventually(lambda: match("Point at a pixel", text(page, ".change")))


def match(pattern, found):
    assert re.search(pattern, found), found
    return found


def test_the_smallest_change_that_flips_the_class_flips_it(page, net, logits):
    stroke(page, SEVEN)
    assert_shows(page, logits)
    x, _ = counted(cells(page))
    find(page, ".flip").click()
    answer = eventually(lambda: match("becomes", text(page, ".answer")))
    pattern = r"row (\d), column (\d) from (\S+) to (\S+): (\d) becomes (\d)\.$"
    row, column, old, new, winner, other = re.match(pattern, answer).groups()
    n = 8 * (int(row) - 1) + int(column) - 1
    assert x[n] == pytest.approx(float(old), abs=6e-4)
    assert np.argmax(net(x)) == int(winner)
    x[n] = float(new)
    assert np.argmax(net(x)) == int(other) != int(winner)
    assert find(page, ".frame").is_displayed()


def test_finite_differences_on_demand(page, logits):
    stroke(page, THREE)
    assert_shows(page, logits)
    find(page, ".check").click()
    answer = eventually(lambda: match("Finite differences", text(page, ".answer")))
    checked, skipped = map(int, re.search(r"agree .*: (\d+) inputs checked, (\d+) skipped", answer).groups())
    assert checked + skipped == 64 and checked > 32


def test_the_page_tells_how_long_the_call_took(page):
    assert float(re.match(r"Output and Jacobian in (\S+) µs", text(page, ".times"))[1]) > 0


def test_dark_pages_have_their_own_scale_at_once(page, logits):
    stroke(page, THREE)
    assert_shows(page, logits)
    for scheme, colours in (("dark", DARK), ("light", LIGHT)):
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        assert_shows(page, logits, colours)


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_screen(page, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        stroke(page, [(0.3, 0.3), (0.5, 0.5)])
        widths = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        eventually(lambda: match("from|Point", text(page, ".change")))
        needed, given = page.execute_script(widths)
        assert needed <= given <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# --- a table


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(5, 16)), rng.normal(size=16)), (rng.normal(size=(16, 3)), None)]
    path = tmp_path_factory.mktemp("table") / "table.npz"
    net = fastjac.Network(layers, "tanh", output_names=["low", "middle", "high"])
    fastjac.save(net, path)
    names = ["age", "income", "rate <b>", "debt", "term"]
    ranges = "-1:1,0:4,-2:2,-1:1,-3:3"
    with served(path, "--port", 0, "--names", ",".join(names), f"--range={ranges}") as (_, url):
        yield net, names, url


def assert_table(driver, net, names, x, spans, chosen=None):
    y, _ = reference.value_and_jacobian(np.array(x, float), net.layers)
    _, jac = reference.value_and_jacobian(np.array(x, float), net.replace(head="identity").layers)
    pulls = jac[np.argmax(y) if chosen is None else chosen] * spans
    order = np.argsort(-abs(pulls))

    def shown():
        found = [float(value) for value in texts(driver, ".output > .number:nth-child(3)")]
        np.testing.assert_allclose(found, y, atol=6e-4)
        assert texts(driver, ".pulls .name") == [names[n] for n in order]
        found = [float(value) for value in texts(driver, ".pulls .number")]
        np.testing.assert_allclose(found, pulls[order], rtol=6e-3)

    eventually(shown)


def test_sliders_move_outputs_and_the_inputs_by_their_pull(browser, table):
    net, names, url = table
    page = visit(browser, url)
    assert texts(page, ".slider .name") == names
    assert texts(page, ".output .name") == ["low", "middle", "high"]
    x, spans = np.array([0, 2, 0, 0, 0.0]), np.array([2, 4, 4, 2, 6])
    assert_table(page, net, names, x, spans)
    for n, key in ((0, Keys.END), (1, Keys.HOME), (4, Keys.END)):
        find(page, ".slider input[type=range]", n).send_keys(key)
        x[n] = {Keys.END: [1, 4, 2, 1, 3], Keys.HOME: [-1, 0, -2, -1, -3]}[key][n]
        assert_table(page, net, names, x, spans)
        shown = find(page, ".slider input[type=number]", n).get_property("value")
        assert float(shown) == x[n]
    Select(find(page, ".pulled select")).select_by_visible_text("middle")
    assert_table(page, net, names, x, spans, chosen=1)
    assert_no_errors(page)


def test_a_number_outside_the_sliders_range_widens_it(browser, table):
    net, names, url = table
    page = visit(browser, url)
    number = find(page, ".slider input[type=number]", 2)
    number.clear()
    number.send_keys("7.5")
    assert_table(page, net, names, [0, 2, 7.5, 0, 0], np.array([2, 4, 9.5, 2, 6]))
    assert float(find(page, ".slider input[type=range]", 2).get_property("value")) == 7.5
    assert_no_errors(page)


def test_an_input_pointed_at_tells_forecast_and_truth(browser, table):
    net, _, url = table
    page = visit(browser, url)
    ActionChains(page).move_to_element(find(page, ".slider .name", 1)).perform()
    logits = net.replace(head="identity")
    before, jac = logits.value_and_jacobian([0, 2, 0, 0, 0])
    expected = np.stack([jac[:, 1] * -2, logits([0, 0, 0, 0, 0]) - before], axis=1)

    def shown():
        assert text(page, ".change").startswith("income from 2 to 0 changes the logits by")
        found = [line.split(" / ") for line in texts(page, ".output > .number:nth-child(5)")]
        np.testing.assert_allclose(np.array(found, float), expected, atol=6e-4)

    eventually(shown)
    assert_no_errors(page)


# --- the connection


def test_the_page_comes_back_after_the_server_does(browser, logits):
    with contextlib.ExitStack() as stack:
        _, url = stack.enter_context(served("--port", 0))
        page = visit(browser, url)
        stroke(page, THREE)
        drawn = cells(page)
        assert_shows(page, logits)
        stack.close()
        eventually(lambda: match("not connected", text(page, ".status")))
        stroke(page, [(0.2, 0.9), (0.4, 0.9)])
        port = url.rstrip("/").rpartition(":")[2]
        stack.enter_context(served("--port", port))
        eventually(lambda: match("^live$", text(page, ".status")))
        assert (cells(page) >= drawn).all() and (cells(page) != drawn).any()
        assert_shows(page, logits)
        assert_no_errors(page, "ERR_CONNECTION_REFUSED|WebSocket connection to .* failed")
