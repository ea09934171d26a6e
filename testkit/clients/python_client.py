"""A TLS client on Python's ssl module, driven over standard input.

Its argument is the mode: tls12-id, tls12-ticket or tls13. Each line of input,
{"host": ..., "port": ...}, is one connection, which offers the session of the
one before. Each line of output, {"reused": ..., "body": ...}, is what came of
it; a connection that fails ends the program with a traceback.
"""

import json
import socket
import ssl
import sys

TIMEOUT_S = 10


def make_context(mode):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    version = ssl.TLSVersion.TLSv1_3 if mode == "tls13" else ssl.TLSVersion.TLSv1_2
    context.minimum_version = context.maximum_version = version
    if mode == "tls12-id":
        context.options |= ssl.OP_NO_TICKET
    return context


def read_to_end(connection):
    return b"".join(iter(lambda: connection.recv(65536), b""))


def connect(context, host, port, session):
    """Returns the result, and the newest session: TLS 1.3 tickets come with the response."""
    with socket.create_connection((host, port), TIMEOUT_S) as raw:
        with context.wrap_socket(raw, session=session) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            body = read_to_end(connection).partition(b"\r\n\r\n")[2]
            result = {"reused": connection.session_reused, "body": body.decode()}
            return result, connection.session


def main():
    context = make_context(sys.argv[1])
    session = None
    for line in sys.stdin:
        target = json.loads(line)
        result, session = connect(context, target["host"], target["port"], session)
        print(json.dumps(result), flush=True)


main()
