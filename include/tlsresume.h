/*
 * libtlsresume: TLS sessions that resume across every process and host of a fleet.
 *
 * Generated from src/ffi by `make header`: change it there.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */

#ifndef TLSRESUME_H
#define TLSRESUME_H

#include <stddef.h>
#include <stdint.h>
#include <openssl/ssl.h>

/** The version of this header; tlsresume_version() is that of the loaded library. */
#define TLSRESUME_VERSION "0.1.0"
#define TLSRESUME_VERSION_MAJOR 0
#define TLSRESUME_VERSION_MINOR 1
#define TLSRESUME_VERSION_PATCH 0
/** One number to compare with: 0xMMmmpp, two hexadecimal digits each. */
#define TLSRESUME_VERSION_NUMBER \
    ((TLSRESUME_VERSION_MAJOR << 16) | (TLSRESUME_VERSION_MINOR << 8) | TLSRESUME_VERSION_PATCH)

/** Marks functions whose answer is not to be ignored. */
#if defined(__GNUC__)
#define TLSRESUME_NODISCARD __attribute__((warn_unused_result))
#else
#define TLSRESUME_NODISCARD
#endif

/**
 * Key file of nginx: 48 or 80 bytes, one key.
 */
#define TLSRESUME_KEYS_NGINX 1

/**
 * Key file of HAProxy: base64 lines, at least three; the last but one encrypts.
 */
#define TLSRESUME_KEYS_HAPROXY 2

/**
 * Key file of Apache httpd: 48 bytes.
 */
#define TLSRESUME_KEYS_APACHE 3

/**
 * Key file of Apache Traffic Server: 48 bytes each; the first encrypts.
 */
#define TLSRESUME_KEYS_ATS 4

/**
 * Key file of nghttpx: 48 or 80 bytes, one key.
 */
#define TLSRESUME_KEYS_NGHTTPX 5

/**
 * Key file of H2O: YAML; the newest that is valid encrypts.
 */
#define TLSRESUME_KEYS_H2O 6

/**
 * Keys as SSL_CTX_set_tlsext_ticket_keys(3) takes them: 80 bytes.
 */
#define TLSRESUME_KEYS_OPENSSL 7

/**
 * Key file of dnsdist: 80 bytes each; the last encrypts.
 */
#define TLSRESUME_KEYS_DNSDIST 8

/**
 * Never dereferenced in C.
 */
typedef struct tlsresume_st tlsresume_st;

/**
 * One realm on this node: its configuration, key ring and session store. Reference counted; each attached context
 * holds a reference of its own.
 */
typedef struct tlsresume_st TLSRESUME;

/**
 * A node's counters and state (see docs/metrics.md). New members come at the end; all numbers are totals since the
 * shared memory was made unless they say otherwise.
 */
typedef struct TLSRESUME_STATS {
    /**
     * How many bytes of this structure were filled in.
     */
    size_t struct_size;
    /**
     * Tickets that were encrypted.
     */
    uint64_t tickets_issued;
    /**
     * Tickets under the encrypting key whose handshake resumed.
     */
    uint64_t tickets_accepted_current;
    /**
     * Tickets under an older key whose handshake resumed.
     */
    uint64_t tickets_accepted_older;
    /**
     * Tickets whose key is not in the ring.
     */
    uint64_t tickets_rejected_unknown_key;
    /**
     * Tickets whose key's time was over, or their own.
     */
    uint64_t tickets_rejected_expired;
    /**
     * Tickets whose key was revoked, or of whose full handshake a session was removed.
     */
    uint64_t tickets_rejected_revoked;
    /**
     * Tickets whose key is known and whose handshake did not resume: forged, or of another server name or policy.
     */
    uint64_t tickets_rejected_mac;
    /**
     * Tickets not looked at: a handshake may bring eight.
     */
    uint64_t tickets_rejected_over_limit;
    /**
     * Sessions put into the store.
     */
    uint64_t sessions_stored;
    /**
     * Sessions that were not put into the store: too long, others kept it locked for 1 ms, or not to be resumed.
     */
    uint64_t sessions_dropped;
    /**
     * Look-ups that found a session.
     */
    uint64_t sessions_hit;
    /**
     * Look-ups of a session that the store does not hold.
     */
    uint64_t sessions_missed_absent;
    /**
     * Look-ups of a session whose time was over, or that a flush covers.
     */
    uint64_t sessions_missed_expired;
    /**
     * Session ids that this realm did not make.
     */
    uint64_t sessions_missed_forged_id;
    /**
     * Sessions of another server name or policy.
     */
    uint64_t sessions_missed_binding;
    /**
     * Sessions that OpenSSL could not parse.
     */
    uint64_t sessions_missed_parse;
    /**
     * Look-ups refused: a handshake may ask for four, and wait for the cluster for `cluster.lookup_budget` in all.
     */
    uint64_t sessions_missed_over_limit;
    /**
     * Live sessions overwritten for want of room.
     */
    uint64_t sessions_evicted;
    /**
     * Sessions that could be resumed now.
     */
    uint64_t sessions_live;
    /**
     * Bytes of the store that hold records now.
     */
    uint64_t store_bytes_used;
    /**
     * Bytes of the store that do not.
     */
    uint64_t store_bytes_free;
    /**
     * Bytes of header, ring and indexes.
     */
    uint64_t store_bytes_overhead;
    /**
     * Ticket keys that wait for their time, now.
     */
    uint64_t keys_pending;
    /**
     * Ticket keys that encrypt, now: one, or none.
     */
    uint64_t keys_active;
    /**
     * Ticket keys that only open tickets, now.
     */
    uint64_t keys_accepting;
    /**
     * Revoked keys that are remembered, now.
     */
    uint64_t keys_revoked;
    /**
     * Seconds since the encrypting key became active.
     */
    uint64_t key_age_seconds;
    /**
     * Keys that were made.
     */
    uint64_t rotations;
    /**
     * Early data allowed.
     */
    uint64_t early_data_allowed;
    /**
     * Early data refused.
     */
    uint64_t early_data_refused;
    /**
     * 1 while the agent's connection to Redis works, now; else, and without Redis, 0.
     */
    uint64_t transport_up_redis;
    /**
     * Sessions and removals that were sent to other nodes.
     */
    uint64_t transport_sent;
    /**
     * Sessions and removals of other nodes that arrived.
     */
    uint64_t transport_received;
    /**
     * Sessions and removals that were lost on the way: not sent, or gone before they were read.
     */
    uint64_t transport_dropped;
    /**
     * What arrived and is no message of this library, or of another version.
     */
    uint64_t transport_rejected_format;
    /**
     * What arrived and no line of cluster.secret_file opens.
     */
    uint64_t transport_rejected_secret;
    /**
     * What arrived and is not what it says it is.
     */
    uint64_t transport_rejected_forged;
    /**
     * What arrived from a node whose clock is too far away.
     */
    uint64_t transport_rejected_clock;
    /**
     * What arrived after its time.
     */
    uint64_t transport_rejected_expired;
    /**
     * Nodes of the cluster that were heard of lately, this one included, now.
     */
    uint64_t nodes;
    /**
     * Nodes of the cluster that have another ring, or whose heartbeat this node cannot read, now.
     */
    uint64_t nodes_out_of_sync;
    /**
     * Look-ups in the cluster, by handshakes.
     */
    uint64_t lookups;
    /**
     * Look-ups that found what they looked for.
     */
    uint64_t lookups_found;
    /**
     * Look-ups that were not tried, since the last ones had failed.
     */
    uint64_t lookups_refused;
    /**
     * Look-ups that were not made, since their thread had waited for others for as long as it may.
     */
    uint64_t lookups_skipped;
    /**
     * Nodes of the cluster that seal with a secret which this node has not, now.
     */
    uint64_t nodes_other_secret;
} TLSRESUME_STATS;

/**
 * Where log lines go instead of standard error. level is 1 (error), 2 (warn), 3 (info) or 4 (debug); message is one
 * line without a newline, valid during the call; arg is what was given to tlsresume_set_log_callback().
 */
typedef void (*TLSRESUME_LOG_CALLBACK)(int level, const char *message, void *arg);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes the TLS sessions of a server context resumable across every process and restart that shares its
 * configuration: the one line.
 *
 * Attaches ctx to the process-wide default instance, which the first call makes as tlsresume_new(NULL) does.
 *
 * Call it once per context, for virtual hosts for each of their contexts. Call it after the context is configured
 * (certificate, session id context, verification: trust anchors added later do not count for what sessions are tied
 * to), before the first SSL_new(3), and before fork(2) so that workers share one memory. Callbacks of the same kinds
 * that you set before are put aside until detach, those set later replace the library's. An allow-early-data callback
 * of your own is the exception: set it after this call and have it ask tlsresume_early_data_allowed(). An info callback
 * set on a connection in its servername or ALPN callback would replace the check of what a session is tied to: set it
 * on the context, or earlier.
 *
 * @param ctx  Server context. Borrowed: the attachment goes with the context, or earlier with tlsresume_detach().
 * @return 1 on success. 0 on failure, with ctx as it was and the reason on the error queue: ctx is NULL or attached
 *         already, or the configuration has a mistake (the text names file, line, key and what is allowed). Memory that
 *         cannot be had at memory.path is not a failure: the server's own processes share anonymous memory until the
 *         file can be had, and one log line says so.
 *
 * Thread safety: any thread, but no other call on the same ctx meanwhile. Fork safety: children inherit the
 * attachment; no thread is started.
 *
 * # Safety
 * ctx is NULL or a valid context.
 */
TLSRESUME_NODISCARD int tlsresume_install(SSL_CTX *ctx);

/**
 * As tlsresume_install(), for a caller compiled against the headers of the OpenSSL version given. The macro of that
 * name calls it, so that a program compiled for another major version is refused rather than misread.
 *
 * @param ctx              See tlsresume_install().
 * @param openssl_version  OPENSSL_VERSION_NUMBER of the caller's headers.
 * @return 1 on success; 0 on failure, also when the major versions differ (the reason names both).
 *
 * Thread and fork safety: as tlsresume_install().
 *
 * # Safety
 * ctx is NULL or a valid context of the OpenSSL that this library uses.
 */
TLSRESUME_NODISCARD int tlsresume_install_checked(SSL_CTX *ctx, unsigned long openssl_version);

/**
 * Makes an instance from a configuration file.
 *
 * @param config_path  TOML file (docs/configuration.md). NULL: the file that the environment variable TLSRESUME_CONFIG
 *                     names, or the defaults if it is not set. TLSRESUME_<SECTION>_<KEY> variables then override single
 *                     keys; the environment is not read in programs with raised privileges.
 * @return A new instance, to be released with tlsresume_free(). NULL on failure with the reason on the error queue:
 *         the configuration, a key file or the secret file has a mistake, which the text names with its remedy.
 *
 * Call it before privileges drop: files are read now. Thread safety: any thread. Fork safety: children inherit the
 * instance; no thread is started.
 *
 * # Safety
 * config_path is NULL or a C string.
 */
TLSRESUME_NODISCARD TLSRESUME *tlsresume_new(const char *config_path);

/**
 * Makes an instance from configuration text.
 *
 * @param toml  What the file would hold; the environment overrides as in tlsresume_new(). Copied.
 * @return As tlsresume_new(); toml being NULL is a failure.
 *
 * Thread and fork safety: as tlsresume_new().
 *
 * # Safety
 * toml is NULL or a C string.
 */
TLSRESUME_NODISCARD TLSRESUME *tlsresume_new_from_string(const char *toml);

/**
 * Checks a configuration, for servers that can test theirs without starting: what tlsresume_new() would say of it and of
 * the key, secret and certificate files that it names. Makes no instance, and creates, replaces or changes no file:
 * memory.path is not opened.
 *
 * @param config_path  As for tlsresume_new(). Borrowed.
 * @return 1 if tlsresume_new() would accept it; 0 if not, with the reason on the error queue.
 *
 * Thread safety: any thread. Fork safety: keeps nothing; no thread is started.
 *
 * # Safety
 * config_path is NULL or a C string.
 */
TLSRESUME_NODISCARD int tlsresume_check(const char *config_path);

/**
 * Attaches a context to an instance: tlsresume_install() for programs with an instance of their own.
 *
 * Sets on ctx the ticket-key callback, the new, get and remove session callbacks, the session id generator, the
 * allow-early-data callback, the cache mode, the timeout, the number of tickets, and the options SSL_OP_NO_ANTI_REPLAY
 * and (stateful) SSL_OP_NO_TICKET. Connections that ask to resume get an info callback, which calls yours first. It
 * stays until the ServerHello, or for the whole handshake where clients are verified or otherwise restricted; then
 * yours is put back.
 *
 * @param tr   Instance; ctx keeps a reference to it.
 * @param ctx  See tlsresume_install().
 * @return 1 on success; 0 on failure, with ctx as it was: an argument is NULL, or ctx is attached already.
 *
 * Thread and fork safety: as tlsresume_install().
 *
 * # Safety
 * tr is NULL or an instance that was not released; ctx is NULL or a valid context.
 */
TLSRESUME_NODISCARD int tlsresume_attach(TLSRESUME *tr, SSL_CTX *ctx);

/**
 * As tlsresume_attach(), for a caller compiled against the headers of the OpenSSL version given; the macro of that
 * name calls it.
 *
 * @param tr               See tlsresume_attach().
 * @param ctx              See tlsresume_attach().
 * @param openssl_version  OPENSSL_VERSION_NUMBER of the caller's headers.
 * @return 1 on success; 0 on failure, also when the major versions differ (the reason names both).
 *
 * Thread and fork safety: as tlsresume_install().
 *
 * # Safety
 * As tlsresume_attach().
 */
TLSRESUME_NODISCARD int tlsresume_attach_checked(TLSRESUME *tr, SSL_CTX *ctx, unsigned long openssl_version);

/**
 * Detaches a context: puts back the options, cache mode, timeout, number of tickets and session callbacks that it had,
 * and clears the callbacks that OpenSSL has no getter for.
 *
 * @param ctx  An attached context. Not while handshakes of its connections go on; connections made before keep the
 *             options that were copied into them.
 * @return 1 on success; 0 on failure: ctx is NULL or not attached.
 *
 * Thread safety: no other use of ctx meanwhile. Fork safety: concerns this process alone.
 *
 * # Safety
 * ctx is NULL or a valid context.
 */
int tlsresume_detach(SSL_CTX *ctx);

/**
 * Starts the agent now, e.g. in a worker's init hook, instead of at the first handshake that finds none. Without a
 * transport, with cluster.agent = "external", or where the node has an agent already, it does nothing.
 *
 * @param tr  Instance.
 * @return 1 on success, also when the system refused a thread (one log line says so, and the next try is after 60 s);
 *         0 on failure: tr is NULL.
 *
 * Thread safety: any thread. Fork safety: call it after the last fork; a child has no agent of its own until it
 * calls this, or makes a handshake while the node has none.
 *
 * # Safety
 * tr is NULL or an instance that was not released.
 */
int tlsresume_start(TLSRESUME *tr);

/**
 * Releases an instance. Contexts that are attached to it go on working: each has a reference of its own.
 *
 * @param tr  Instance, or NULL, which does nothing.
 *
 * Thread safety: any thread, once. Fork safety: concerns this process alone.
 *
 * # Safety
 * tr is NULL or an instance that was not released; it is not used afterwards.
 */
void tlsresume_free(TLSRESUME *tr);

/**
 * Asks the strike register about a connection's early data, for applications with an allow-early-data callback of
 * their own: call it there, and accept only if both agree.
 *
 * @param ssl  The connection that the callback got (SSL_CTX_set_allow_early_data_cb(3)).
 * @return 1 when this ticket was not used for early data before; 0 when it was, when that cannot be told for certain,
 *         or when ssl is NULL or its context not attached. On 0 the client falls back to a handshake without early data
 *         (RFC 8446 section 8).
 *
 * Thread safety: on the thread of the handshake. Fork safety: any process.
 *
 * # Safety
 * ssl is NULL or a valid connection.
 */
int tlsresume_early_data_allowed(SSL *ssl);

/**
 * Adds another server's ticket keys to the ring. All of them open tickets from now on; the one that encrypts in that
 * server takes over here after keys.activation_delay, until the next scheduled key does. Tickets made with imported
 * keys are not bound to server name and policy, since that server does not bind them; they are refused once a connection
 * of this node was served under rules for its clients, unless resumption.bind = false.
 *
 * @param tr      Instance.
 * @param data    Content of the key file, at most 64 KiB. Copied; wipe your own copy.
 * @param len     Bytes in data.
 * @param format  One of TLSRESUME_KEYS_*.
 * @return 1 on success; 0 on failure, with the ring as it was: an argument is out of range, the data is not what the
 *         format says (the reason says what was expected), or the ring is full.
 *
 * Thread safety: any thread. Waits at most 2 s for another process that changes the ring. Fork safety: every process of
 * the node sees the keys.
 *
 * # Safety
 * tr is NULL or an instance that was not released; data is NULL or points to len bytes.
 */
int tlsresume_keys_import(TLSRESUME *tr, const unsigned char *data, size_t len, int format);

/**
 * Makes a new ticket key that takes over after keys.activation_delay; the old ones go on opening their tickets.
 *
 * @param tr  Instance with keys.source = "random".
 * @return 1 on success; 0 on failure: tr is NULL, keys come from files or a secret, or 256 keys are in use already.
 *
 * Thread and fork safety: as tlsresume_keys_import().
 *
 * # Safety
 * tr is NULL or an instance that was not released.
 */
int tlsresume_keys_rotate(TLSRESUME *tr);

/**
 * Refuses a key, or all keys made so far, from now on; new ones take their place at once. Tickets made with it lead to
 * full handshakes.
 *
 * @param tr    Instance.
 * @param name  16 bytes: the key's name, which is how its tickets begin. NULL: every key.
 * @return 1 on success; 0 on failure: tr is NULL, no key of that name is known, 256 single keys are revoked already, or
 *         (every key) this host's clock differs from Redis's by more than 30 minutes: then the keys that this node knows
 *         are refused, and others that turn up later are not; set the clock and call it again.
 *
 * Thread and fork safety: as tlsresume_keys_import(), but with Redis and NULL it waits longer: first for Redis to say what
 * time it is, at most 1.5 s, then 2 s for another process that changes the ring. That is 3.5 s together, and as long as
 * the system takes to look up names of hosts.
 *
 * # Safety
 * tr is NULL or an instance that was not released; name is NULL or points to 16 bytes.
 *
 */
int tlsresume_keys_revoke(TLSRESUME *tr, const unsigned char name[16]);

/**
 * Forgets every session in the store, and those authenticated before now wherever they turn up. Tickets that carry
 * their session themselves are not affected: tlsresume_keys_revoke(tr, NULL) ends those.
 *
 * @param tr  Instance.
 * @return 1 on success; 0 on failure: tr is NULL, another process kept the ring for 2 s, or this host's clock differs
 *         from Redis's by more than 30 minutes: then only the sessions that this node stores are forgotten; set the clock
 *         and call it again.
 *
 * Thread and fork safety: as tlsresume_keys_revoke(tr, NULL), 3.5 s included.
 *
 * # Safety
 * tr is NULL or an instance that was not released.
 */
int tlsresume_sessions_flush(TLSRESUME *tr);

/**
 * Forgets one session, e.g. when its user logs out, and all other sessions and tickets of the same full handshake, on
 * every node that shares them. A TLS 1.3 ticket that holds its session has an id too; a TLS 1.2 ticket has none.
 *
 * @param tr      Instance.
 * @param id      Session id (SSL_SESSION_get_id(3)).
 * @param id_len  Bytes in id.
 * @return 1, whether or not the session was known; 0 when an argument is NULL, or when other processes kept the store for
 *         too long: then other nodes are not told; call it again.
 *
 * Thread safety: any thread; waits at most 30 ms for others that write to the store. Fork safety: every process of the
 * node sees it.
 *
 * # Safety
 * tr is NULL or an instance that was not released; id is NULL or points to id_len bytes.
 */
int tlsresume_session_remove(TLSRESUME *tr, const unsigned char *id, size_t id_len);

/**
 * Fills in a node's counters and state.
 *
 * @param tr        Instance.
 * @param out       Where to write.
 * @param out_size  sizeof(TLSRESUME_STATS) as the caller knows it: no more is written, so programs and libraries of
 *                  different age fit. out->struct_size tells how many bytes were.
 * @return 1 on success; 0 on failure, with out as it was: tr or out is NULL, or out_size has no room for one number.
 *
 * Looks at what is in use of the store's index (some milliseconds for 16 MiB): for reports, not for handshakes.
 * Thread safety: any thread. Fork safety: the numbers are the node's, the same in every process.
 *
 * # Safety
 * tr is NULL or an instance that was not released; out is NULL or has room for out_size bytes.
 */
int tlsresume_stats(TLSRESUME *tr, struct TLSRESUME_STATS *out, size_t out_size);

/**
 * Writes a node's metrics as Prometheus text (docs/metrics.md).
 *
 * @param tr   Instance.
 * @param buf  Where to write, or NULL to ask for the length alone.
 * @param len  In: bytes in buf. Out: bytes of the text with its final NUL.
 * @return 1 on success, also when buf is NULL; 0 on failure: tr or len is NULL, or buf is too small (len then says what
 *         is needed; the text can grow by a few digits from one call to the next).
 *
 * Cost, thread and fork safety: as tlsresume_stats().
 *
 * # Safety
 * tr is NULL or an instance that was not released; len is NULL or valid; buf is NULL or has room for *len bytes.
 */
int tlsresume_metrics(TLSRESUME *tr, char *buf, size_t *len);

/**
 * Sends the library's log lines to a callback instead of standard error, for all instances of the process.
 *
 * @param cb   The callback, or NULL for standard error again. It may be called from any thread that does a handshake,
 *             so it must be thread safe, must return soon, and must not call this library.
 * @param arg  Given to every call. It must stay valid for as long as the callback is set.
 *
 * Thread safety: any thread. Fork safety: children inherit the setting.
 *
 * # Safety
 * cb is NULL or a function as described, safe to call with arg from any thread.
 */
void tlsresume_set_log_callback(TLSRESUME_LOG_CALLBACK cb, void *arg);

/**
 * The library's version.
 *
 * @return A static string such as "0.1.0". Never NULL.
 *
 * Thread and fork safety: always safe.
 */
const char *tlsresume_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/*
 * A program that was compiled against the headers of one major version of OpenSSL and runs with a
 * library built for another one would hand over an SSL_CTX of an unknown layout. So that it is
 * refused instead, with an error that names both, these two calls carry the version that the
 * compiler saw. The functions of the same name remain for callers without a C compiler; they can
 * be reached from C as (tlsresume_install)(ctx).
 */
#define tlsresume_install(ctx) tlsresume_install_checked((ctx), OPENSSL_VERSION_NUMBER)
#define tlsresume_attach(tr, ctx) tlsresume_attach_checked((tr), (ctx), OPENSSL_VERSION_NUMBER)

#endif /* TLSRESUME_H */
