"""mhakit and its peers as a parameter: the same list everywhere, skipped where not installed.

asv asks one environment for the parameters and counts them in all: so a peer is never left out of
the list, and a row that cannot be done says why it is skipped.
"""

from mhakit.bench.attention import contest
from mhakit.bench.contest import load_peers
from mhakit.errors import MissingExtra

__all__ = ["WHO", "WHOLE", "call_of"]

WHO = ["mhakit", "numpy", "torch", "onnxruntime", "jax"]
WHOLE = 2**29
"""Bytes that a peer may need for a number of every target and source."""


def call_of(work, who):
    """Return one side's call on a row of attention, checked and warm."""
    if who == "mhakit":
        call = contest(work).mine
    else:
        refuse(work, who)
        load_peers([who])
        call = peer_of(contest(work).peers[who]).call
    call()
    return call


def peer_of(make):
    """Return a peer, checked; skip the row, as asv understands it, where it is not installed."""
    try:
        return make()
    except MissingExtra as error:
        raise NotImplementedError(str(error)) from None


def refuse(work, who):
    """Skip a row that a peer has no form for, or only one that needs too much memory."""
    B, H, G, T, S, _, _ = work.sizes
    masked = bool(work.window or work.padded or work.changed)
    if who == "onnxruntime" and (masked or G != H or work.dtype != "float32"):
        raise NotImplementedError("its operator is asked for plain attention in float32 only")
    if who == "numpy" and work.dtype in ("float16", "bfloat16"):
        raise NotImplementedError("NumPy has no product of 16-bit matrices to speak of")
    if who == "jax" and work.dtype in ("float16", "float64"):
        raise NotImplementedError("it computes scores in float32, and none in float16 on a CPU")
    if who == "torch" and not masked:
        return  # its fused kernel keeps no score
    heads = H if who != "torch" or work.changed in ("bias", "alibi") else 1
    whole = 4 * B * heads * T * S
    if whole > WHOLE:
        raise NotImplementedError(f"it needs {whole >> 20} MiB for scores, more than {WHOLE >> 20}")
