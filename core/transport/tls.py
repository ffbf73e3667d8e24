"""TLS to a broker: which authorities to trust, and which certificate to show."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from core.errors import SettingsError, one_line

if TYPE_CHECKING:
    from core.transport.options import ConnectOptions


class _TlsSocket(ssl.SSLSocket):
    """A socket that closes itself when its handshake fails. paho would drop it and leave it open."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the standard library's signature
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def tls_context(options: ConnectOptions) -> ssl.SSLContext:
    """Return the TLS context of connections with ``options``. Raise SettingsError for a file that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"MQTT_CA_FILE={options.ca_file} cannot be used: {one_line(error)}") from None
    context.sslsocket_class = _TlsSocket
    if not options.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.cert_file is not None:
        try:
            context.load_cert_chain(options.cert_file, options.key_file, options.key_password or "")
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"MQTT_CERT_FILE={options.cert_file} cannot be used with its key: {one_line(error)}"
            ) from None
    return context
