import hashlib, json, os, select, socket, ssl, sys

port, version, role = int(sys.argv[1]), sys.argv[2], sys.argv[3]
data = os.urandom(8 << 20)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.minimum_version = context.maximum_version = {
    "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing)

link = socket.socket()
link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
link.connect(("127.0.0.1", port))
received = bytearray()
end = None

def flush():
    link.sendall(outgoing.read())

def receive():
    "Takes what the socket has, or waits for it. Says whether there will be more."
    global end
    try:
        chunk = link.recv(8192)
    except ConnectionError:
        chunk = b""
    if chunk:
        incoming.write(chunk)
    else:
        incoming.write_eof()
    while end is None:
        try:
            clear = tls.read(65536)
        except ssl.SSLWantReadError:
            return True
        except ssl.SSLZeroReturnError:
            clear = b""
        except ssl.SSLError:
            end = "cut"
            return False
        received.extend(clear)
        if not clear:
            end = "close_notify"
    return False

def say_end():
    try:
        tls.unwrap()
    except ssl.SSLError:
        pass

def duplex():
    "Reads only while it cannot write: the slowest reader that does not give up."
    sent, said_end, pending = 0, False, b""
    while end is None:
        if not pending and sent < len(data):
            sent += tls.write(data[sent:sent + 16384])
        elif not pending and not said_end:
            say_end()
            said_end = True
        pending += outgoing.read()
        readable, writable, _ = select.select([link], [link] if pending else [], [])
        if writable:
            try:
                pending = pending[link.send(pending, socket.MSG_DONTWAIT):]
            except ConnectionError:
                pending, sent, said_end = b"", len(data), True
        else:
            receive()

def listen_first():
    while receive():
        pass
    tls.write(data)
    say_end()
    flush()

def talk():
    for line in sys.stdin:
        tls.write(line.encode())
        flush()
        before = len(received)
        while not received.endswith(b"\n", before):
            if not receive():
                return
        print(received[before:].decode().strip(), flush=True)

while True:
    try:
        tls.do_handshake()
        break
    except ssl.SSLWantReadError:
        flush()
        incoming.write(link.recv(65536))
flush()

if role == "duplex":
    duplex()
elif role == "listen first":
    listen_first()
elif role == "talk":
    talk()
elif role == "idle":
    while receive():
        pass
elif role == "deaf":
    sys.stdin.read()
elif role == "cut":
    tls.write(data[:1000])
    flush()

link.close()
if role != "talk":
    print(json.dumps({
        "sent": hashlib.sha256(data).hexdigest(), "bytes": len(data),
        "received": hashlib.sha256(received).hexdigest(), "bytes_received": len(received),
        "end": end or ""}))
