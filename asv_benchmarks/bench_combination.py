"""Combining heads: every installed combination, a plugin author's too, beside NumPy's best form."""

import numpy as np

H, E, T = 12, 64, 512
M = H * E


def names() -> list[str]:
    """Return the installed combinations: a plugin that is installed is a parameter."""
    import mhakit

    return [record.name for record in mhakit.combinations()]


def numpy_form(name, heads, parameters):
    """Return the same arithmetic in NumPy's best form, or None where none is written down."""
    if name == "concat_project":
        side_by_side = np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(1, T, M)
        return lambda: side_by_side @ parameters["weight"] + parameters["bias"]
    if name == "average":
        return lambda: heads.mean(axis=1) @ parameters["weight"] + parameters["bias"]
    return None


class Combine:
    """How long does each combination take on heads that lie as attention writes them?"""

    params = (names(), ["mhakit", "numpy"])
    param_names = ("combination", "who")

    def setup(self, combination, who):
        import mhakit

        rng = np.random.default_rng(0)
        layer = mhakit.MultiHeadAttention(M, H, combine=combination, rng=0)
        heads = rng.standard_normal((1, T, H, E)).astype(np.float32).swapaxes(1, 2)
        hidden = rng.standard_normal((1, T, M)).astype(np.float32)
        learned = layer.parameters()
        parameters = {n.split(".", 1)[1]: v for n, v in learned.items() if n.startswith("combine.")}

        def mine():
            return mhakit.combine(heads, combination, parameters, hidden_states=hidden)

        self.call = mine if who == "mhakit" else numpy_form(combination, heads, parameters)
        if self.call is None:
            raise NotImplementedError("no form of NumPy's is written down")  # how asv skips a row
        np.testing.assert_allclose(self.call(), mine(), atol=1e-4)

    def time_combine(self, combination, who):
        self.call()
