"""Makes the pictures of the live page in docs/: a drawing, and a table.

pip install '.[sklearn]'
python3 tools/in_venv.py python tools/show_pictures.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from sklearn.datasets import load_wine
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastjac

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.pages import chromium, served, stroke

DOCS = Path(__file__).parents[1] / "docs"
SEVEN = [(0.3, 0.2), (0.7, 0.2), (0.45, 0.85)]


def picture(arguments: list[str], name: str, hovered: str, points: list[tuple[float, float]]) -> None:
    """Save the page as docs/NAME, with a stroke drawn and the pointer over what ``hovered`` selects."""
    with served("--port", 0, *arguments) as (_, url), chromium(1100, 1000) as driver:
        driver.get(url)
        time.sleep(1)
        if points:
            stroke(driver, points)
        driver.find_element(By.CSS_SELECTOR, "h1").click()
        time.sleep(1)
        driver.find_element(By.CSS_SELECTOR, ".flip").click()
        ActionChains(driver).move_to_element(driver.find_elements(By.CSS_SELECTOR, hovered)[7]).perform()
        time.sleep(1)
        driver.find_element(By.CSS_SELECTOR, ".fastjac").screenshot(str(DOCS / name))


def table(folder: Path) -> list[str]:
    """Train a network on the wines of scikit-learn, and return the arguments that show it."""
    wines = load_wine(as_frame=True)
    x = wines.data.rename(columns={"od280/od315_of_diluted_wines": "dilution"})
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((24,), alpha=1, max_iter=800, random_state=0))
    net = fastjac.from_sklearn(pipeline.fit(x, wines.target))
    fastjac.save(net.replace(output_names=["wine A", "wine B", "wine C"]), folder / "wine.npz")
    names = ",".join(x.columns.str.replace("_", " "))
    ranges = ",".join(f"{low:g}:{high:g}" for low, high in zip(x.min(), x.max(), strict=True))
    return [str(folder / "wine.npz"), "--names", names, "--range", ranges]


if __name__ == "__main__":
    picture([], "show-digits.png", ".map canvas", SEVEN)
    with tempfile.TemporaryDirectory() as folder:
        picture(table(Path(folder)), "show-table.png", ".slider .name", [])
