"""A prefork HTTPS server on Python's ssl module, which loads OpenSSL by dlopen.

Arguments: host, port, certificate, key, number of workers. The context is made
before the fork, as a server that knows what is good for its clients would.
"""

import os
import signal
import socket
import ssl
import sys

BODY = b"python\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
TIMEOUT_S = 10


def serve(listener, context):
    while True:
        raw, _ = listener.accept()
        raw.settimeout(TIMEOUT_S)
        try:
            with context.wrap_socket(raw, server_side=True) as connection:
                while connection.recv(4096):
                    connection.sendall(RESPONSE)
                connection.unwrap()
        except OSError as error:  # What ssl raises is one, too.
            print(f"connection: {error}", file=sys.stderr, flush=True)


def main():
    host, port, certificate, key, workers = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server((host, int(port)))

    children = []
    for _ in range(int(workers)):
        child = os.fork()
        if child == 0:
            serve(listener, context)
        children.append(child)

    def end(*_):
        for child in children:
            os.kill(child, signal.SIGKILL)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        signal.pause()


main()
