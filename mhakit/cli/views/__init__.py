"""What a terminal shows: plain words piped, a little weight and shade on a screen."""

from mhakit.cli.views.heads import show_heads
from mhakit.cli.views.listings import show_combinations, show_info
from mhakit.cli.views.probe import progress, show_probe

__all__ = ["progress", "show_combinations", "show_heads", "show_info", "show_probe"]
