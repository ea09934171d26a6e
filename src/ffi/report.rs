//! What the library says about itself: statistics, metrics, log lines, version.

use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::size_of;

use super::boundary::{required, status};
use super::instance::{TLSRESUME, engine};
use crate::clock;
use crate::engine::Report;
use crate::error::Error;
use crate::stats::{Counter, Gauge};

/// A node's counters and state (see docs/metrics.md). New members come at the end; all numbers are totals since the
/// shared memory was made unless they say otherwise.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TLSRESUME_STATS {
    /// How many bytes of this structure were filled in.
    pub struct_size: usize,
    /// Tickets that were encrypted.
    pub tickets_issued: u64,
    /// Tickets under the encrypting key whose handshake resumed.
    pub tickets_accepted_current: u64,
    /// Tickets under an older key whose handshake resumed.
    pub tickets_accepted_older: u64,
    /// Tickets whose key is not in the ring.
    pub tickets_rejected_unknown_key: u64,
    /// Tickets whose key's time was over, or their own.
    pub tickets_rejected_expired: u64,
    /// Tickets whose key was revoked, or of whose full handshake a session was removed.
    pub tickets_rejected_revoked: u64,
    /// Tickets whose key is known and whose handshake did not resume: forged, or of another server name or policy.
    pub tickets_rejected_mac: u64,
    /// Tickets not looked at: a handshake may bring eight.
    pub tickets_rejected_over_limit: u64,
    /// Sessions put into the store.
    pub sessions_stored: u64,
    /// Sessions that were not put into the store: too long, others kept it locked for 1 ms, or not to be resumed.
    pub sessions_dropped: u64,
    /// Look-ups that found a session.
    pub sessions_hit: u64,
    /// Look-ups of a session that the store does not hold.
    pub sessions_missed_absent: u64,
    /// Look-ups of a session whose time was over, or that a flush covers.
    pub sessions_missed_expired: u64,
    /// Session ids that this realm did not make.
    pub sessions_missed_forged_id: u64,
    /// Sessions of another server name or policy.
    pub sessions_missed_binding: u64,
    /// Sessions that OpenSSL could not parse.
    pub sessions_missed_parse: u64,
    /// Look-ups refused: a handshake may ask for four, and wait for the cluster for `cluster.lookup_budget` in all.
    pub sessions_missed_over_limit: u64,
    /// Live sessions overwritten for want of room.
    pub sessions_evicted: u64,
    /// Sessions that could be resumed now.
    pub sessions_live: u64,
    /// Bytes of the store that hold records now.
    pub store_bytes_used: u64,
    /// Bytes of the store that do not.
    pub store_bytes_free: u64,
    /// Bytes of header, ring and indexes.
    pub store_bytes_overhead: u64,
    /// Ticket keys that wait for their time, now.
    pub keys_pending: u64,
    /// Ticket keys that encrypt, now: one, or none.
    pub keys_active: u64,
    /// Ticket keys that only open tickets, now.
    pub keys_accepting: u64,
    /// Revoked keys that are remembered, now.
    pub keys_revoked: u64,
    /// Seconds since the encrypting key became active.
    pub key_age_seconds: u64,
    /// Keys that were made.
    pub rotations: u64,
    /// Early data allowed.
    pub early_data_allowed: u64,
    /// Early data refused.
    pub early_data_refused: u64,
    /// 1 while the agent's connection to Redis works, now; else, and without Redis, 0.
    pub transport_up_redis: u64,
    /// Sessions and removals that were sent to other nodes.
    pub transport_sent: u64,
    /// Sessions and removals of other nodes that arrived.
    pub transport_received: u64,
    /// Sessions and removals that were lost on the way: not sent, or gone before they were read.
    pub transport_dropped: u64,
    /// What arrived and is no message of this library, or of another version.
    pub transport_rejected_format: u64,
    /// What arrived and no line of cluster.secret_file opens.
    pub transport_rejected_secret: u64,
    /// What arrived and is not what it says it is.
    pub transport_rejected_forged: u64,
    /// What arrived from a node whose clock is too far away.
    pub transport_rejected_clock: u64,
    /// What arrived after its time.
    pub transport_rejected_expired: u64,
    /// Nodes of the cluster that were heard of lately, this one included, now.
    pub nodes: u64,
    /// Nodes of the cluster that have another ring, or whose heartbeat this node cannot read, now.
    pub nodes_out_of_sync: u64,
    /// Look-ups in the cluster, by handshakes.
    pub lookups: u64,
    /// Look-ups that found what they looked for.
    pub lookups_found: u64,
    /// Look-ups that were not tried, since the last ones had failed.
    pub lookups_refused: u64,
    /// Look-ups that were not made, since their thread had waited for others for as long as it may.
    pub lookups_skipped: u64,
    /// Nodes of the cluster that seal with a secret which this node has not, now.
    pub nodes_other_secret: u64,
}

/// Where log lines go instead of standard error. level is 1 (error), 2 (warn), 3 (info) or 4 (debug); message is one
/// line without a newline, valid during the call; arg is what was given to tlsresume_set_log_callback().
#[allow(non_camel_case_types, reason = "the name that C programs see")]
pub type TLSRESUME_LOG_CALLBACK =
    Option<unsafe extern "C" fn(level: c_int, message: *const c_char, arg: *mut c_void)>;

/// Fills in a node's counters and state.
///
/// @param tr        Instance.
/// @param out       Where to write.
/// @param out_size  sizeof(TLSRESUME_STATS) as the caller knows it: no more is written, so programs and libraries of
///                  different age fit. out->struct_size tells how many bytes were.
/// @return 1 on success; 0 on failure, with out as it was: tr or out is NULL, or out_size has no room for one number.
///
/// Looks at what is in use of the store's index (some milliseconds for 16 MiB): for reports, not for handshakes.
/// Thread safety: any thread. Fork safety: the numbers are the node's, the same in every process.
///
/// # Safety
/// tr is NULL or an instance that was not released; out is NULL or has room for out_size bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_stats(
    tr: *mut TLSRESUME,
    out: *mut TLSRESUME_STATS,
    out_size: usize,
) -> c_int {
    status(|| {
        // SAFETY: as the caller promises.
        let engine = unsafe {
            required(out, "out is NULL")?;
            engine(tr)?
        };
        let struct_size = out_size.min(size_of::<TLSRESUME_STATS>());
        if struct_size < size_of::<usize>() + size_of::<u64>() {
            return Err(Error::Argument("out_size is smaller than the first two members"));
        }
        let stats = TLSRESUME_STATS { struct_size, ..stats(&engine.report(clock::now())) };
        // SAFETY: out has room for out_size bytes (caller), and no more than that are written.
        unsafe {
            std::ptr::copy_nonoverlapping((&raw const stats).cast::<u8>(), out.cast(), struct_size)
        };
        Ok(())
    })
}

/// Writes a node's metrics as Prometheus text (docs/metrics.md).
///
/// @param tr   Instance.
/// @param buf  Where to write, or NULL to ask for the length alone.
/// @param len  In: bytes in buf. Out: bytes of the text with its final NUL.
/// @return 1 on success, also when buf is NULL; 0 on failure: tr or len is NULL, or buf is too small (len then says what
///         is needed; the text can grow by a few digits from one call to the next).
///
/// Cost, thread and fork safety: as tlsresume_stats().
///
/// # Safety
/// tr is NULL or an instance that was not released; len is NULL or valid; buf is NULL or has room for *len bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_metrics(
    tr: *mut TLSRESUME,
    buf: *mut c_char,
    len: *mut usize,
) -> c_int {
    status(|| {
        // SAFETY: as the caller promises.
        let (engine, room) = unsafe {
            required(len, "len is NULL")?;
            (engine(tr)?, *len)
        };
        let text = engine.metrics(clock::now());
        let needed = text.len() + 1;
        // SAFETY: valid, as the caller promises.
        unsafe { *len = needed };
        if buf.is_null() {
            return Ok(());
        }
        if room < needed {
            return Err(Error::BufferTooSmall(
                "buf is too small for the metrics; *len says how long it must be",
            ));
        }
        // SAFETY: buf has room for the text and its NUL.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), buf.cast(), text.len());
            *buf.add(text.len()) = 0;
        }
        Ok(())
    })
}

/// Sends the library's log lines to a callback instead of standard error, for all instances of the process.
///
/// @param cb   The callback, or NULL for standard error again. It may be called from any thread that does a handshake,
///             so it must be thread safe, must return soon, and must not call this library.
/// @param arg  Given to every call. It must stay valid for as long as the callback is set.
///
/// Thread safety: any thread. Fork safety: children inherit the setting.
///
/// # Safety
/// cb is NULL or a function as described, safe to call with arg from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tlsresume_set_log_callback(cb: TLSRESUME_LOG_CALLBACK, arg: *mut c_void) {
    let arg = Arg(arg);
    let sink = cb.map(|cb| -> crate::log::Sink {
        Box::new(move |level, text| {
            // Named whole, so that the closure holds the wrapper and not the pointer in it.
            let arg = &arg;
            let Ok(line) = CString::new(text.replace(['\0', '\n'], " ")) else {
                return;
            };
            // SAFETY: the callback and its argument are as the caller promised; the line is a C string.
            unsafe { cb(level as c_int, line.as_ptr(), arg.0) }
        })
    });
    status(|| {
        crate::log::set_sink(sink);
        Ok(())
    });
}

/// The library's version.
///
/// @return A static string such as "0.1.0". Never NULL.
///
/// Thread and fork safety: always safe.
#[unsafe(no_mangle)]
pub extern "C" fn tlsresume_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The caller's argument to its callback.
struct Arg(*mut c_void);

// SAFETY: the pointer is only handed back to the caller's callback, which the caller promised may get it on any thread.
unsafe impl Send for Arg {}
// SAFETY: as above.
unsafe impl Sync for Arg {}

fn stats(report: &Report) -> TLSRESUME_STATS {
    let count = |counter| report.counter(counter);
    TLSRESUME_STATS {
        struct_size: 0,
        tickets_issued: count(Counter::TicketsIssued),
        tickets_accepted_current: count(Counter::TicketsAcceptedCurrent),
        tickets_accepted_older: count(Counter::TicketsAcceptedOlder),
        tickets_rejected_unknown_key: count(Counter::TicketsUnknownKey),
        tickets_rejected_expired: count(Counter::TicketsExpired),
        tickets_rejected_revoked: count(Counter::TicketsRevoked),
        tickets_rejected_mac: count(Counter::TicketsMac),
        tickets_rejected_over_limit: count(Counter::TicketsOverLimit),
        sessions_stored: count(Counter::SessionsStored),
        sessions_dropped: count(Counter::SessionsDropped),
        sessions_hit: count(Counter::SessionsHit),
        sessions_missed_absent: count(Counter::SessionsAbsent),
        sessions_missed_expired: count(Counter::SessionsExpired),
        sessions_missed_forged_id: count(Counter::SessionsForgedId),
        sessions_missed_binding: count(Counter::SessionsBinding),
        sessions_missed_parse: count(Counter::SessionsParse),
        sessions_missed_over_limit: count(Counter::SessionsOverLimit),
        sessions_evicted: count(Counter::SessionsEvicted),
        sessions_live: report.sessions_live,
        store_bytes_used: report.usage.used,
        store_bytes_free: report.usage.free,
        store_bytes_overhead: report.usage.overhead,
        keys_pending: report.keys.pending,
        keys_active: report.keys.active,
        keys_accepting: report.keys.accepting,
        keys_revoked: report.keys.revoked,
        key_age_seconds: report.key_age_seconds,
        rotations: count(Counter::Rotations),
        early_data_allowed: count(Counter::EarlyDataAllowed),
        early_data_refused: count(Counter::EarlyDataRefused),
        transport_up_redis: report.gauge(Gauge::TransportUp),
        transport_sent: count(Counter::TransportSent),
        transport_received: count(Counter::TransportReceived),
        transport_dropped: count(Counter::TransportDropped),
        transport_rejected_format: count(Counter::TransportRejectedFormat),
        transport_rejected_secret: count(Counter::TransportRejectedSecret),
        transport_rejected_forged: count(Counter::TransportRejectedForged),
        transport_rejected_clock: count(Counter::TransportRejectedClock),
        transport_rejected_expired: count(Counter::TransportRejectedExpired),
        nodes: report.gauge(Gauge::Nodes),
        nodes_out_of_sync: report.gauge(Gauge::NodesOutOfSync),
        lookups: report.lookups().1,
        lookups_found: count(Counter::LookupsFound),
        lookups_refused: count(Counter::LookupsRefused),
        lookups_skipped: count(Counter::LookupsSkipped),
        nodes_other_secret: report.gauge(Gauge::NodesOtherSecret),
    }
}
