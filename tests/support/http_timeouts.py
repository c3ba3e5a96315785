"""How long a test waits for what comes at once: other tests and their servers may have the machine. HTTP that does."""

from __future__ import annotations

from functools import partial

import httpx

PATIENCE = 120  # seconds; httpx itself waits five
get, post = partial(httpx.get, timeout=PATIENCE), partial(httpx.post, timeout=PATIENCE)
