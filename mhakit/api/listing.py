"""What is installed of score modifications and mixings."""

from __future__ import annotations

from mhakit import registry

__all__ = ["mixings", "score_mods"]


def score_mods() -> tuple[registry.InstalledScoreMod, ...]:
    """Return the score modifications that are installed, with where each came from.

    Returns
    -------
    tuple of InstalledScoreMod
        In alphabetical order, each with ``name`` (what ``score_mod=`` takes), ``options`` (what
        ``score_args=`` takes then), ``reference`` (the paper), ``distribution``, ``version``,
        ``module`` and ``factory``.

    Raises
    ------
    PluginError
        If mhakit was never installed, so that there is none.

    Examples
    --------
    >>> import mhakit
    >>> for mod in mhakit.score_mods():
    ...     if mod.distribution == "mhakit":
    ...         print(f"{mod.name}({mod.options})")
    alibi(slopes=None)
    distance_decay(rates=1.0, scales=1.0)
    softcap(cap=50.0)
    t5_relative_position(table, max_distance=128)
    t5_relative_position_causal(table, max_distance=128)
    """
    return registry.installed_score_mods()


def mixings() -> tuple[registry.InstalledMixing, ...]:
    """Return the ways of mixing scores and weights between heads that are installed.

    Returns
    -------
    tuple of InstalledMixing
        In alphabetical order, each with ``name``, ``reference`` (the paper), ``distribution``,
        ``version``, ``module`` and ``cls``.

    Raises
    ------
    PluginError
        If mhakit was never installed, so that there is none.

    Examples
    --------
    >>> import mhakit
    >>> [record.name for record in mhakit.mixings() if record.distribution == "mhakit"]
    ['talking_heads']
    """
    return registry.installed_mixings()
