/* QUIC servers of OpenSSL 3.5 and later share sessions as others do. scripts/test-openssl.sh builds and runs this program,
 * with the one line in it and, as PRELOADED, without.
 *
 * Two processes serve on a socket each; a client comes back to the other one each time. OpenSSL holds the lock of a QUIC
 * connection while it calls the library back: what asks for it there hangs, which the alarm ends. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/quic.h>

enum { SERVERS = 2, VISITS = 30, DEADLINE = 120 };

static const unsigned char ALPN[] = "\x05" "check";

static struct {
    int socket;
    struct sockaddr_in address;
    pid_t pid;
} servers[SERVERS];

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned int in_len, void *arg)
{
    (void)ssl, (void)arg;
    int chosen = SSL_select_next_proto((unsigned char **)out, out_len, ALPN, sizeof ALPN - 1, in,
                                       in_len);
    return chosen == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* ---- Servers ---- */

static SSL_CTX *quic_server(TLSRESUME *tr)
{
    SSL_CTX *like = server_new(), *server = SSL_CTX_new(OSSL_QUIC_server_method());
    CHECK(server != NULL);
    CHECK(SSL_CTX_use_certificate(server, SSL_CTX_get0_certificate(like)) == 1);
    CHECK(SSL_CTX_use_PrivateKey(server, SSL_CTX_get0_privatekey(like)) == 1);
    CHECK(SSL_CTX_set_session_id_context(server, (const unsigned char *)"check", 5) == 1);
    SSL_CTX_set_alpn_select_cb(server, choose_protocol, NULL);
    SSL_CTX_free(like);
#ifdef PRELOADED
    (void)tr;
#else
    CHECK(tlsresume_attach(tr, server) == 1);
#endif
    return server;
}

/* Tells the client whether the server resumed. The client closes first: one whose connection is closed already when it
 * wants to close it counts its session as a bad one (SSL_shutdown(3) of OpenSSL 3.5 leaves before it notes that it was
 * called), and offers it to nobody. */
static void answer(SSL *connection)
{
    char request[16];
    size_t len = 0;
    SSL_set_blocking_mode(connection, 1);
    CHECK(SSL_do_handshake(connection) == 1);
    const char *resumed = SSL_session_reused(connection) ? "r" : "f";
    SSL *stream = SSL_accept_stream(connection, 0);
    CHECK(stream != NULL);
    CHECK(SSL_read_ex(stream, request, sizeof request, &len) == 1);
    CHECK(SSL_write_ex(stream, resumed, 1, &len) == 1);
    CHECK(SSL_stream_conclude(stream, 0) == 1);
    SSL_shutdown_ex(connection, SSL_SHUTDOWN_FLAG_WAIT_PEER, NULL, 0);
    SSL_free(stream);
    SSL_free(connection);
}

/* A listener of a context, or of a domain with that context. */
static SSL *listener_new(SSL_CTX *ctx, bool of_domain)
{
    if (!of_domain)
        return SSL_new_listener(ctx, 0);
    SSL *domain = SSL_new_domain(ctx, 0);
    CHECK(domain != NULL);
    SSL *listener = SSL_new_listener_from(domain, 0);
    SSL_free(domain);
    return listener;
}

static void serve(TLSRESUME *tr, int number)
{
    SSL *listener = listener_new(quic_server(tr), number == 1);
    CHECK(listener != NULL);
    CHECK(SSL_set_fd(listener, servers[number].socket) == 1 && SSL_listen(listener) == 1);
    SSL_set_blocking_mode(listener, 1);
    for (;;) {
        SSL *connection = SSL_accept_connection(listener, 0);
        if (connection != NULL)
            answer(connection);
    }
}

static void start_servers(TLSRESUME *tr)
{
    for (int i = 0; i < SERVERS; i++) {
        socklen_t len = sizeof servers[i].address;
        servers[i].socket = socket(AF_INET, SOCK_DGRAM, 0);
        servers[i].address = (struct sockaddr_in){.sin_family = AF_INET};
        servers[i].address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        struct sockaddr *address = (struct sockaddr *)&servers[i].address;
        CHECK(servers[i].socket >= 0 && bind(servers[i].socket, address, len) == 0);
        CHECK(getsockname(servers[i].socket, address, &len) == 0);
    }
    /* What children share is made before they are. */
    SSL_CTX_free(quic_server(tr));
    for (int i = 0; i < SERVERS; i++) {
        servers[i].pid = fork();
        CHECK(servers[i].pid >= 0);
        if (servers[i].pid == 0) {
            alarm(DEADLINE);
            serve(tr, i);
        }
        close(servers[i].socket);
    }
}

static void stop_servers(void)
{
    for (int i = 0; i < SERVERS; i++) {
        int status = 0;
        kill(servers[i].pid, SIGTERM);
        CHECK(waitpid(servers[i].pid, &status, 0) == servers[i].pid);
        CHECK_SAYING(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "server %d: status %x", i,
                     (unsigned int)status);
    }
}

/* ---- The client ---- */

static SSL_SESSION *session;
static int tickets;

static int got_session(SSL *ssl, SSL_SESSION *got)
{
    (void)ssl;
    SSL_SESSION_free(session);
    session = got;
    tickets++;
    return 1;
}

static SSL *connect_to(SSL_CTX *client, int server, int socket)
{
    SSL *ssl = SSL_new(client);
    BIO_ADDR *peer = BIO_ADDR_new();
    CHECK(ssl != NULL && peer != NULL);
    CHECK(BIO_ADDR_rawmake(peer, AF_INET, &servers[server].address.sin_addr,
                           sizeof servers[server].address.sin_addr,
                           servers[server].address.sin_port) == 1);
    CHECK(SSL_set_fd(ssl, socket) == 1 && SSL_set1_initial_peer_addr(ssl, peer) == 1);
    BIO_ADDR_free(peer);
    CHECK(SSL_set_alpn_protos(ssl, ALPN, sizeof ALPN - 1) == 0);
    CHECK(SSL_set_tlsext_host_name(ssl, "a.example") == 1);
    SSL_set_blocking_mode(ssl, 1);
    if (session != NULL)
        CHECK(SSL_set_session(ssl, session) == 1);
    CHECK(SSL_connect(ssl) == 1);
    return ssl;
}

/* The server's tickets come when they come, often after its answer. Without one there is nothing to come back with. */
static void await_ticket(SSL *ssl)
{
    while (tickets == 0)
        CHECK(SSL_handle_events(ssl) == 1);
}

/* Whether it resumed, which both sides must agree on. */
static bool visits(SSL_CTX *client, int server)
{
    char answer = 0;
    size_t len = 0;
    int socket_of_client = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(socket_of_client >= 0);
    tickets = 0;
    SSL *ssl = connect_to(client, server, socket_of_client);
    CHECK(SSL_write_ex(ssl, "hello", 5, &len) == 1 && SSL_stream_conclude(ssl, 0) == 1);
    CHECK(SSL_read_ex(ssl, &answer, 1, &len) == 1);
    await_ticket(ssl);
    bool resumed = SSL_session_reused(ssl) == 1;
    CHECK_EQUAL(answer == 'r', resumed);
    CHECK(SSL_shutdown_ex(ssl, SSL_SHUTDOWN_FLAG_RAPID, NULL, 0) >= 0);
    SSL_free(ssl);
    close(socket_of_client);
    CHECK(SSL_SESSION_is_resumable(session));
    return resumed;
}

static void comes_back(TLSRESUME *tr, const char *mode)
{
    start_servers(tr);
    SSL_CTX *client = SSL_CTX_new(OSSL_QUIC_client_method());
    CHECK(client != NULL);
    SSL_CTX_set_session_cache_mode(client, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client, got_session);
    CHECK(!visits(client, 0));
    for (int visit = 1; visit < VISITS; visit++)
        CHECK_SAYING(visits(client, visit % SERVERS), "%s, visit %d", mode, visit);
    stop_servers();
    CHECK_SAYING((SSL_CTX_get_options(client) & SSL_OP_NO_ANTI_REPLAY) == 0,
                 "the client's context was attached");
    SSL_SESSION_free(session);
    session = NULL;
    SSL_CTX_free(client);
}

static void a_quic_client_resumes_at_the_other_process(void)
{
    alarm(DEADLINE);
#ifdef PRELOADED
    comes_back(NULL, getenv("TLSRESUME_RESUMPTION_MODE"));
#else
    for (int k = TLS13_STATELESS; k <= TLS13_STATEFUL; k++) {
        TLSRESUME *tr = realm_of(&KIND[k], "");
        comes_back(tr, KIND[k].name);
        tlsresume_free(tr);
    }
#endif
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    CLAIM(a_quic_client_resumes_at_the_other_process);
    return check_end();
}
