"""Trains the digits network that fastjac ships, 64-100-10, and keeps ten digits that it has not seen.

    pip install '.[sklearn]'
    python examples/train_digits.py [FOLDER]

It writes digits.npz and digits_samples.npz to FOLDER, by default the package's data folder. The digits
are the 8x8 pictures that scikit-learn ships of the "Optical Recognition of Handwritten Digits" data set
(E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0), scaled to [0, 1].
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import fastjac

SEED = 0
# Strong enough that no class is certain: at a probability of 1, no input changes anything.
WEIGHT_DECAY = 0.3


def main(folder: Path) -> None:
    """Train, print the accuracy on the digits held back, and write both files."""
    digits = load_digits()
    x_train, x_held, label_train, label_held = train_test_split(
        digits.data / 16, digits.target, test_size=0.2, random_state=SEED, stratify=digits.target
    )
    classifier = MLPClassifier((100,), alpha=WEIGHT_DECAY, random_state=SEED, max_iter=400)
    classifier.fit(x_train, label_train)
    accuracy = classifier.score(x_held, label_held)
    print(f"accuracy on {len(label_held)} digits held back: {accuracy:.3f}")

    layers = list(zip(classifier.coefs_, classifier.intercepts_, strict=True))
    net = fastjac.Network(layers, output_names=[str(label) for label in classifier.classes_])
    fastjac.save(net, folder / "digits.npz")
    first_of_each = [int(np.argmax(label_held == label)) for label in range(10)]
    np.savez(folder / "digits_samples.npz", x=x_held[first_of_each], label=label_held[first_of_each])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(fastjac.__file__).with_name("data"))
