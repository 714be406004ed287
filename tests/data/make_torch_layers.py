"""Record what torch.nn.MultiheadAttention computes, as an oracle that needs no torch.

Run it where torch is installed: ``python tests/data/make_torch_layers.py``. The recorded file,
torch_layers.npz, holds for each case its state (``<case>/state/<key>``), inputs and outputs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

B, T, S, M, H = 2, 5, 7, 12, 3
CASES = {
    "self": {},
    "without bias": {"bias": False},
    "causal": {"causal": True},
    "cross": {"cross": True},
    "padded": {"cross": True, "key_lengths": [4, 7]},
}


def compute(case: str) -> dict[str, np.ndarray]:
    """Run one case in torch; return its state, inputs and outputs by name."""
    import torch

    options = CASES[case]
    torch.manual_seed(list(CASES).index(case))
    layer = torch.nn.MultiheadAttention(M, H, bias=options.get("bias", True), batch_first=True)
    if layer.in_proj_bias is not None:
        torch.nn.init.normal_(layer.in_proj_bias)
        torch.nn.init.normal_(layer.out_proj.bias)
    x = torch.randn(B, T, M)
    source = torch.randn(B, S, M) if options.get("cross") else x
    mask = torch.ones(T, T, dtype=torch.bool).triu(1) if options.get("causal") else None
    lengths = options.get("key_lengths")
    padding = None if lengths is None else torch.arange(S) >= torch.tensor(lengths)[:, None]
    with torch.no_grad():
        output, weights = layer(
            x, source, source,
            attn_mask=mask, key_padding_mask=padding, average_attn_weights=False,
        )  # fmt: skip
    arrays = {"x": x, "source": source, "output": output, "weights": weights}
    arrays |= {f"state/{name}": value for name, value in layer.state_dict().items()}
    return {name: value.numpy() for name, value in arrays.items()}


if __name__ == "__main__":
    recorded = {f"{case}/{name}": a for case in CASES for name, a in compute(case).items()}
    np.savez_compressed(Path(__file__).with_name("torch_layers.npz"), **recorded)
