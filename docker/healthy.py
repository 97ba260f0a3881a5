"""Whether the daemon of this container is well: `healthy.py live`, or `healthy.py ready` (its engine, too).

Reads the settings that the daemon reads, so it asks where that listens, with TLS or without. Ends with 0, or with 1 and
the reason.
"""

from __future__ import annotations

import ssl
import sys
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from bridge.errors import SettingsError
from bridge.settings import load_settings

_OWN = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (where it listens everywhere, it is asked here)
_PATIENCE = 8.0
"""Seconds; less than the health checks have, more than the daemon gives its engine."""


def main(what: str = "live") -> None:
    own = load_settings().serve
    listens = own.host.strip("[]")
    host = _OWN.get(listens, listens)
    scheme = "https" if own.tls_certificate else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{own.port}/health/{what}"
    # It asks itself: the certificate is for the name that others use.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        build_opener(ProxyHandler({}), HTTPSHandler(context=context)).open(url, timeout=_PATIENCE).close()
    except HTTPError as error:
        sys.exit(f"{url}: {error.code} {error.read(500).decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SettingsError as error:
        sys.exit(str(error))
