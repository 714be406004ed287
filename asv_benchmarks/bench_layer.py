"""The layer: project, attend, combine, beside torch's where it is installed."""

from importlib.util import find_spec

import numpy as np

M, H = 768, 12


class Layer:
    """How long does a layer of M=768, H=12 take, with and without the weights of every head?"""

    params = (
        ["1x512", "8x128"],
        ["output", "output and weights"],
        ["mhakit"] + ["torch"] * bool(find_spec("torch")),
    )
    param_names = ("batch", "returned", "who")

    def setup(self, batch, returned, who):
        import mhakit

        B, T = map(int, batch.split("x"))
        x = np.random.default_rng(0).standard_normal((B, T, M)).astype(np.float32)
        weighted = returned == "output and weights"
        if who == "mhakit":
            layer = mhakit.MultiHeadAttention(M, H, rng=0)
            self.call = lambda: layer(x, return_weights=weighted)
        else:
            self.call = self._with_torch(x, weighted)
        self.call()

    def _with_torch(self, x, weighted):
        import numba
        import torch

        import mhakit

        torch.set_num_threads(numba.get_num_threads())
        peer = torch.nn.MultiheadAttention(M, H, batch_first=True).eval()
        state = {name: value.detach().numpy() for name, value in peer.state_dict().items()}
        tensor = torch.from_numpy(x)

        def call():
            with torch.inference_mode():
                return peer(
                    tensor, tensor, tensor, need_weights=weighted, average_attn_weights=False
                )

        mine = mhakit.MultiHeadAttention.from_torch_state_dict(state, H)(x)
        np.testing.assert_allclose(call()[0].numpy(), mine, atol=1e-4)
        return call

    def time_layer(self, batch, returned, who):
        self.call()
