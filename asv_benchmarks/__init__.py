"""How fast mhakit is, over time: one file a verb, one class a question, peers as parameters.

All sides wait passively between parallel regions: a spinning barrier turns a tenth of a
millisecond into several where another process has a core.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
