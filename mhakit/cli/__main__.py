"""``python -m mhakit.cli`` is ``mhakit``."""

from mhakit.cli import main

if __name__ == "__main__":
    main()
