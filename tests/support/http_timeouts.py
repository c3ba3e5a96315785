"""HTTP requests with a time-out that is long enough while other tests and servers run on the machine."""

from __future__ import annotations

from functools import partial

import httpx

TIMEOUT_SECONDS = 120  # the default of httpx is five
get, post = partial(httpx.get, timeout=TIMEOUT_SECONDS), partial(httpx.post, timeout=TIMEOUT_SECONDS)
