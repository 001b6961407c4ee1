"""Random ONNX graphs of one vector: activations, comparisons, sums and norms in any order."""

import numpy as np

N = 4
FUNCTIONS = (
    *("Abs", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "Log", "Mish", "Neg"),
    *("Reciprocal", "Relu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh"),
)
OPERATORS = ("Add", "Sub", "Mul", "Div", "Max", "Min")
REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceSumSquare", "ReduceL2")


class Drawn:
    """Draws nodes of a `Writer`, each on tensors that are there: their names and shapes without samples."""

    def __init__(self, writer, rng):
        self.k, self.rng = writer, rng
        self.tensors = [("x", (N,))]

    def choice(self, options):
        return options[self.rng.integers(len(options))]

    def other(self, shape):
        """Return a tensor of a shape, or a constant."""
        if self.rng.random() < 0.6:
            return self.choice([name for name, each in self.tensors if each == shape])
        constants = [0.5, 1.0, 2.0, -1.0, 1e-3, self.rng.normal(), self.rng.normal(size=shape)]
        return np.array(self.choice(constants))

    def add(self):
        """Draw one more tensor."""
        name, shape = self.tensors[-1] if self.rng.random() < 0.6 else self.choice(self.tensors)
        draw = self.choice(
            [self.function, self.pair, self.cases, self.norm, self.head, self.dense, self.moved]
        )
        self.tensors.append(draw(name, shape))
        return self.tensors[-1][0]

    def function(self, name, shape):
        power = np.array(self.choice([0.0, 0.5, -0.5, -1.0, 2.0, 3.0]))
        limits = [np.array(limit) for limit in np.sort(self.rng.normal(size=2))]
        drawn = self.choice(
            [(op, name) for op in FUNCTIONS] + 3 * [("Pow", name, power), ("Clip", name, *limits)]
        )
        return self.k(*drawn), shape

    def pair(self, name, shape):
        operands = [name, self.other(shape)]
        return self.k(
            self.choice(OPERATORS), *(operands if self.rng.random() < 0.6 else operands[::-1])
        ), shape

    def cases(self, name, shape):
        condition = self.k(
            self.choice(("Greater", "Less", "GreaterOrEqual")), name, np.array(self.rng.normal())
        )
        return self.k("Where", condition, self.other(shape), self.other(shape)), shape

    def norm(self, name, shape):
        axis = np.array([self.rng.integers(len(shape)) + 1])
        if self.rng.random() < 0.5:
            total = self.k(self.choice(REDUCTIONS), name, axis)
            return self.k(self.choice(("Add", "Sub", "Mul", "Div")), name, total), shape
        d = self.k("Sub", name, self.k("ReduceMean", name, axis))
        variance = self.k("ReduceMean", self.k("Mul", d, d), axis)
        return self.k(
            "Div", d, self.k("Sqrt", self.k("Add", variance, np.array(self.choice([1e-5, 0.1]))))
        ), shape

    def head(self, name, shape):
        return self.k(
            self.choice(("Softmax", "LogSoftmax")), name, axis=self.rng.integers(len(shape)) + 1
        ), shape

    def dense(self, name, shape):
        fan_out = int(self.rng.integers(1, 6))
        z = self.k("Add", self.k("MatMul", name, self.k.w(shape[-1], fan_out)), self.k.w(fan_out))
        return z, (*shape[:-1], fan_out)

    def moved(self, name, shape):
        size = int(np.prod(shape))
        if len(shape) == 2:
            return self.choice(
                [
                    lambda: (self.k("Flatten", name), (size,)),
                    lambda: (self.k("Transpose", name, perm=[0, 2, 1]), shape[::-1]),
                ]
            )()
        if size % 2 == 0 and self.rng.random() < 0.5:
            return self.k("Reshape", name, np.array([-1, 2, size // 2])), (2, size // 2)
        return self.k("Gather", name, self.rng.integers(0, size, 3), axis=1), (3,)
