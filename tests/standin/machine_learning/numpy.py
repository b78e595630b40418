"""As much of NumPy as one inference of the stand-in needs."""


def ones(shape, _type):
    rows, columns = shape[-2:]
    return [[1.0] * columns for _ in range(rows)]
