"""Score modifications of papers, as a user writes them."""


def alibi(score, b, h, t, s, slopes):
    """Press, Smith and Lewis, arXiv:2108.12409: a penalty linear in the distance."""
    return score - slopes[h] * type(score)(abs(t - s))
