"""Plugins each broken in one way, and what is said of each."""

from __future__ import annotations

from material.distributions import MIXING, REGISTER_GOOD, SCORE_MOD

BROKEN = {
    "import": (
        "import no_such_module_at_all",
        r"ModuleNotFoundError: No module named 'no_such_module_at_all'",
    ),
    "syntax": ("def (:", r"SyntaxError: "),
    "exit": ("raise SystemExit('bye')", r"SystemExit: bye"),
    "hook": (
        "@hookimpl\ndef mhakit_register_combinations(register):\n"
        "    register(Good)\n    raise ZeroDivisionError('halfway')",
        r"ZeroDivisionError: halfway",
    ),
    "misspelt": (
        "@hookimpl\ndef mhakit_regster_combinations(register):\n    register(Good)",
        r"its hook must be named mhakit_register_combinations, mhakit_register_score_mods or "
        r"mhakit_register_mixings, got mhakit_regster_combinations",
    ),
    "argument": (
        "@hookimpl\ndef mhakit_register_combinations(register, colour):\n    register(Good)",
        r"its hook must take the one argument register; .*mhakit_register_combinations.*colour",
    ),
    "unmarked": (
        "def mhakit_register_combinations(register):\n    register(Good)",
        r"it must have a function marked @hookimpl, mhakit_register_combinations, .*, got none",
    ),
    "nothing": (
        "@hookimpl\ndef mhakit_register_combinations(register):\n    pass",
        r"it must register something, got nothing; its hook must call register",
    ),
    "no subclass": (
        REGISTER_GOOD + "    register(int)",
        r"a combination must be a subclass of HeadCombination, got <class 'int'>",
    ),
    "an object": (
        REGISTER_GOOD + "    register(Good())",
        r"a combination must be a subclass of HeadCombination, got <.*Good object",
    ),
    "no name": (
        "class Bare(HeadCombination):\n    reference = 'a test'\n    plan = Good.plan\n"
        + REGISTER_GOOD
        + "    register(Bare)",
        r"combination Bare must have the class attribute name, a string that is not empty, got N",
    ),
    "no reference": (
        "class Bare(HeadCombination):\n    name = 'bare'\n    plan = Good.plan\n"
        + REGISTER_GOOD
        + "    register(Bare)",
        r"combination Bare must have the class attribute reference",
    ),
    "nothing to run": (
        "class Idle(HeadCombination):\n    name = 'idle'\n    reference = 'a test'\n"
        + REGISTER_GOOD
        + "    register(Idle)",
        r"combination 'idle' must define plan or forward, got neither",
    ),
    "no default": (
        "class Picky(Good):\n    def __init__(self, k, j=1): pass\n"
        + REGISTER_GOOD
        + "    register(Picky)",
        r"combination 'good' must have a default for every constructor argument, got none for k",
    ),
    "abstract": (
        "class Unfinished(Good):\n    @abstractmethod\n    def mix(self): ...\n"
        + REGISTER_GOOD
        + "    register(Unfinished)",
        r"combination 'good' must define mix, got an abstract class",
    ),
    "twins": (
        "class Twin(Good): pass\n" + REGISTER_GOOD + "    register(Twin)",
        r"it must register 'good' once, got two classes of that name",
    ),
    "asks": (
        "@hookimpl\ndef mhakit_register_combinations(register):\n"
        "    from mhakit import registry\n    registry.installed()",
        r"what is installed must not be asked for while plugins register it",
    ),
    "no reference of a score mod": (
        SCORE_MOD.replace(", reference='a test'", ""),
        r"TypeError: .*missing 1 required keyword-only argument: 'reference'",
    ),
    "empty name of a score mod": (
        SCORE_MOD.replace("'halve'", "''"),
        r"a score mod's name must be a string that is not empty, got ''",
    ),
    "no factory": (
        SCORE_MOD.replace("halving", "3"),
        r"score mod 'halve' must have a factory \(num_heads, dtype, \*options\) -> .*, got 3",
    ),
    "a function in place of its factory": (
        SCORE_MOD.replace("halving", "lambda score: score"),
        r"score mod 'halve' must have a factory that takes \(num_heads, dtype, \*options\), got \(score\)",
    ),
    "twins of a score mod": (
        SCORE_MOD + "    register('halve', half, reference='a test')",
        r"it must register 'halve' once, got two factories of that name",
    ),
    "no mixing": (
        MIXING.replace("Swap", "Good"),
        r"a mixing must be a subclass of HeadMixing, got <class '.*Good'>",
    ),
    "a mixing that does nothing": (
        "class Idle(HeadMixing):\n    name = 'idle'\n    reference = 'a test'\n"
        + MIXING.replace("Swap", "Idle"),
        r"mixing 'idle' must define mix_scores or mix_weights, got neither",
    ),
    "a mixing without a default": (
        "class Picky(Swap):\n    def __init__(self, k): pass\n" + MIXING.replace("Swap", "Picky"),
        r"mixing 'swap' must have a default for every constructor argument, got none for k",
    ),
}
