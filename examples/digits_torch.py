"""Trains a PyTorch module on the digits, saves it through `fastjac.from_torch`, and compares.

pip install . torch scikit-learn
python examples/digits_torch.py [FOLDER]
"""

import numpy as np
import torch
from digits import compare, folder, split
from torch import nn

import fastjac

EPS = 2.0**-16  # exact in float32, the dtype in which ONNX keeps it


def train(x, label):
    """Return a module in eval mode."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.BatchNorm1d(64, eps=EPS),
        nn.Linear(64, 40),
        nn.GELU(),
        nn.Dropout(0.2),
        nn.Linear(40, 20),
        nn.BatchNorm1d(20, eps=EPS),
        nn.ReLU(),
        nn.Linear(20, 10),
    ).to(x.dtype)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), label).backward()
        optimizer.step()
    return nn.Sequential(module, nn.Softmax(dim=1)).eval()


def outputs(module, x):
    """Return PyTorch's own probabilities and Jacobians."""
    x = torch.from_numpy(x)
    jacobian = torch.func.jacrev(lambda sample: module(sample[None])[0])
    return module(x).detach().numpy(), torch.stack([jacobian(sample) for sample in x]).detach().numpy()


if __name__ == "__main__":
    for dtype in (np.float32, np.float64):
        x_train, label, x = split(dtype)
        module = train(torch.from_numpy(x_train), torch.from_numpy(label))
        path = folder() / f"torch_{dtype.__name__}.safetensors"
        fastjac.save(fastjac.from_torch(module), path)
        compare(path, x, *outputs(module, x))
