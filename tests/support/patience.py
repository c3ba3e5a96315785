"""HTTP as a test asks it: other tests and their servers may have the machine, so what comes at once may take long."""

from __future__ import annotations

from functools import partial

import httpx

PATIENCE = 120  # seconds; httpx itself waits five
get, post = partial(httpx.get, timeout=PATIENCE), partial(httpx.post, timeout=PATIENCE)
