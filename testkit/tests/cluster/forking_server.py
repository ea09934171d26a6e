"""An HTTPS server that serves its first connection itself, and forks for each other one.

Arguments: certificate, key. It prints its port, then the process id of each
process that has served a connection. Those wait for the end of standard input.
"""

import os
import socket
import ssl
import sys

RESPONSE = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"
TIMEOUT_S = 10


def serve(context, raw):
    raw.settimeout(TIMEOUT_S)
    with context.wrap_socket(raw, server_side=True) as connection:
        connection.recv(4096)
        connection.sendall(RESPONSE)
        connection.unwrap()
    print("served by", os.getpid(), flush=True)


def main():
    certificate, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)

    raw, _ = listener.accept()
    serve(context, raw)
    while True:
        raw, _ = listener.accept()
        if os.fork() == 0:
            serve(context, raw)
            os.read(0, 1)
            os._exit(0)
        raw.close()


main()
