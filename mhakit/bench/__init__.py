"""How fast mhakit is beside its peers: the rows, the peers, the checks, the clock, the table.

`mhakit bench` prints what is measured here; the benchmarks of asv draw on the same rows.
``rows`` is the table as data; ``attention``, ``layers``, ``combining`` and ``memory`` do a row's
work, checked; ``timing`` takes turns and ``measuring`` makes results of them; ``machine`` tells
what bounds them, ``process`` sees that all sides run alike, ``table`` and ``report`` show it.
"""
