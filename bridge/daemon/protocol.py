"""HTTP as uvicorn speaks it, but that no body is lost to an offered protocol.

Java's own client offers HTTP/2 with its requests (``Upgrade: h2c``), Apache's offers TLS. A server may take no notice
(RFC 9110, 7.8); but the parser takes what follows such a request's head for the other protocol, and its body is lost.
"""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_FRAMING = (b"content-length", b"transfer-encoding")


class Protocol(HttpToolsProtocol):
    """Reads the body of a request whose offer is not taken as that of any other."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self._offered = self._body_only = False

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # It has ended at the head: a parser of its own reads the body, whose head says no more than its length.
                rest = data[upgrade.args[0] :]
                framing = b"".join(b"%b: %b\r\n" % one for one in self.headers if one[0] in _FRAMING)
                self._offered, self._body_only = False, True
                self.parser = httptools.HttpRequestParser(self)
                data = b"POST / HTTP/1.1\r\n%b\r\n%b" % (framing, rest)
            except httptools.HttpParserError:
                self.logger.warning("Invalid HTTP request received.")
                self.send_400_response("Invalid HTTP request received.")
                return
            else:
                return

    def on_message_begin(self) -> None:
        if not self._body_only:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._body_only:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._body_only:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._body_only:
            self._offered = self.parser.should_upgrade()
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._offered:
            self._body_only = False
            super().on_message_complete()
