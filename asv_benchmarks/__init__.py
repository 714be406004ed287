"""How fast mhakit is, over time: one file a subject, one class a question.

What stands beside peers is measured as `mhakit bench` does it (``bench_table``); rows, peers and
checks live in ``mhakit.bench``. All sides wait passively: see ``mhakit.bench.process``.
"""

import os

from mhakit.bench.process import default_threads, environment

for _name, _value in environment(default_threads()).items():
    os.environ.setdefault(_name, _value)
