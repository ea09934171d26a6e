"""A TLS client that makes many visits and holds each connection until told.

Each line of input is a request, each line of output what came of it:

{"host", "port", "mode": "tls12-id" | "tls12-ticket" | "tls13",
 "speaks": "http" | "postgres", "session": number or null, "name": server name,
 "certificate": null or [certificate file, key file]}
    connects, offers that session, has a request answered, stays connected:
    {"reused", "offered", "session": number of the newest session or null,
     "ticket": whether the server gave a ticket, "version", "from": [host, port],
     "answer"}
{"close": true}
    ends the connection as TLS has it: {"closed": true}

A connection that fails is {"error": text}. Sessions keep their numbers.
"""

import json
import socket
import ssl
import struct
import sys

TIMEOUT_S = 10
POSTGRES_TLS, POSTGRES_3_0 = 80877103, 196608

contexts = {}
sessions = []
open_connection = None


def context_of(mode, certificate):
    """One for each kind of client: sessions belong to the context that made them."""
    key = mode, tuple(certificate or ())
    if key not in contexts:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        version = ssl.TLSVersion.TLSv1_3 if mode == "tls13" else ssl.TLSVersion.TLSv1_2
        context.minimum_version = context.maximum_version = version
        if mode == "tls12-id":
            context.options |= ssl.OP_NO_TICKET
        if certificate:
            context.load_cert_chain(*certificate)
        contexts[key] = context
    return contexts[key]


def before_tls(raw, speaks):
    if speaks == "postgres":
        raw.sendall(struct.pack("!II", 8, POSTGRES_TLS))
        if raw.recv(1) != b"S":
            raise OSError("the server does not want TLS")


def ask(connection, speaks, name):
    """Has something answered: TLS 1.3 tickets come before the answer."""
    if speaks == "postgres":
        body = struct.pack("!I", POSTGRES_3_0) + b"user\0postgres\0\0"
        connection.sendall(struct.pack("!I", 4 + len(body)) + body)
        return connection.recv(4096)[:1].decode()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % name.encode())
    stream = connection.makefile("rb")
    status = stream.readline().decode().strip()
    length = 0
    for header in iter(stream.readline, b"\r\n"):
        if not header:
            raise OSError(f"the server ended its answer: {status}")
        key, _, value = header.partition(b":")
        if key.lower() == b"content-length":
            length = int(value)
    body = stream.read(length).decode(errors="replace")
    return f"{status}\n{body}"


def connect(request):
    global open_connection
    speaks, name = request["speaks"], request["name"]
    context = context_of(request["mode"], request["certificate"])
    offered = None if request["session"] is None else sessions[request["session"]]
    raw = socket.create_connection((request["host"], request["port"]), TIMEOUT_S)
    try:
        before_tls(raw, speaks)
        connection = context.wrap_socket(raw, server_hostname=name, session=offered)
        answer = ask(connection, speaks, name)
    except BaseException:
        raw.close()
        raise
    session = connection.session
    number = None
    if session and (session.id or session.has_ticket):
        number = len(sessions)
        sessions.append(session)
    open_connection = connection
    return {
        "reused": connection.session_reused,
        "offered": offered is not None,
        "session": number,
        "ticket": bool(session and session.has_ticket),
        "version": connection.version(),
        "from": list(connection.getsockname()),
        "answer": answer,
    }


def close():
    """Says so first: servers forget the session of a connection that breaks off. H2O says nothing
    in return, so nothing is waited for."""
    global open_connection
    connection, open_connection = open_connection, None
    if connection is not None:
        connection.setblocking(False)
        try:
            connection.unwrap()
        except OSError:
            pass
        connection.close()
    return {"closed": True}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = close() if "close" in request else connect(request)
        except OSError as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


main()
