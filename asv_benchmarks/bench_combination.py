"""Combining heads: every installed combination, a plugin author's too, beside NumPy's best form."""

import numpy as np

from asv_benchmarks.numpy_forms import FORMS
from asv_benchmarks.peers import interleaved

H, E, T = 12, 64, 512
M = H * E


def names() -> list[str]:
    """Return the installed combinations: a plugin that is installed is a parameter."""
    import mhakit

    return [record.name for record in mhakit.combinations()]


def case(combination):
    """Return heads (1, T, H, E), hidden states, and the parameters that a layer begins with."""
    import mhakit

    rng = np.random.default_rng(0)
    layer = mhakit.MultiHeadAttention(M, H, combine=combination, rng=0)
    heads = rng.standard_normal((1, T, H, E)).astype(np.float32)
    hidden = rng.standard_normal((1, T, M)).astype(np.float32)
    learned = layer.parameters()
    parameters = {n.split(".", 1)[1]: v for n, v in learned.items() if n.startswith("combine.")}
    return heads, hidden, parameters


def calls(combination):
    """Return mhakit's call and NumPy's, or None where no form is written down; both agree."""
    import mhakit

    heads, hidden, parameters = case(combination)
    as_attention_writes_them = heads.swapaxes(1, 2)

    def mine():
        return mhakit.combine(
            as_attention_writes_them, combination, parameters, hidden_states=hidden
        )

    def numpys():
        return FORMS[combination](heads, hidden, parameters)

    if combination not in FORMS:
        return mine, None
    np.testing.assert_allclose(numpys(), mine(), atol=1e-4)
    return mine, numpys


class Combine:
    """How long does each combination take on heads that lie as attention writes them?"""

    params = (names(), ["mhakit", "numpy"])
    param_names = ("combination", "who")

    def setup(self, combination, who):
        mine, numpys = calls(combination)
        self.call = mine if who == "mhakit" else numpys
        if self.call is None:
            raise NotImplementedError("no form of NumPy's is written down")  # how asv skips a row

    def time_combine(self, combination, who):
        self.call()


class OverNumpy:
    """How many times as long as NumPy's best form does each combination take?"""

    params = (names(),)
    param_names = ("combination",)
    unit = "ratio"

    def setup(self, combination):
        self.mine, self.numpys = calls(combination)
        if self.numpys is None:
            raise NotImplementedError("no form of NumPy's is written down")  # how asv skips a row

    def track_over_numpy(self, combination):
        return interleaved(self.mine, self.numpys, repeats=15)


class Gradient:
    """How long does each combination take forward and backward?"""

    params = (names(),)
    param_names = ("combination",)

    def setup(self, combination):
        heads, self.hidden, self.parameters = case(combination)
        self.heads = heads.swapaxes(1, 2)
        self.d_output = self.hidden[:, ::-1].copy()
        self.time_combine_vjp(combination)

    def time_combine_vjp(self, combination):
        import mhakit

        _, pullback = mhakit.combine_vjp(
            self.heads, combination, self.parameters, hidden_states=self.hidden
        )
        pullback(self.d_output)
