"""Trains a PyTorch module on the digits, exports it to ONNX, and compares with PyTorch and ONNX Runtime.

pip install . torch scikit-learn onnx onnxscript onnxruntime
python examples/digits_onnx.py [FOLDER]
"""

import numpy as np
import onnxruntime
import torch
from digits import compare, folder, split
from digits_torch import outputs, train

if __name__ == "__main__":
    for dtype in (np.float32, np.float64):
        x_train, label, x = split(dtype)
        module = train(torch.from_numpy(x_train), torch.from_numpy(label))
        path = folder() / f"onnx_{dtype.__name__}.onnx"
        batch = torch.export.Dim("batch")
        torch.onnx.export(module, (torch.from_numpy(x),), path, dynamic_shapes=({0: batch},), verbose=False)
        y, jac = outputs(module, x)
        if dtype == np.float32:  # ONNX Runtime has no float64 GELU
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            (y,) = session.run(None, {session.get_inputs()[0].name: x})
        compare(path, x, y, jac)
