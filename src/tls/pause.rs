//! Pausing a handshake that waits for the cluster, where the application is ready for that (SSL_MODE_ASYNC).
//!
//! Owns: the question that a paused connection waits for, and the descriptor that tells when to go on; both hang on the
//! connection's ASYNC_WAIT_CTX and go with it. Called by: the get-session callback alone, for others may hold OpenSSL's
//! locks. Threads: OpenSSL resumes a job on the thread that it began on. Forks: a child may free what it inherited.
//! Failure: the handshake is not paused, but waits.
//!
//! The job's stack is 32 KiB of heap without a guard page, and a connection that is freed while paused never returns to
//! it: whatever is on it then is lost. So between [`prepare`] and [`conclude`] nothing is there to be dropped.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use openssl_sys::SSL;

use super::connection::is_quic;
use super::guard::contained;
use super::sys::{self, AsyncWaitCtx};
use crate::engine::{Asking, Question};
use crate::sys::{EventFd, memory};

/// An application that blocked pausing (ASYNC_block_pause) is back at once, every time. After so many times in vain the
/// handshake waits as others do.
const MOST_RETURNS: u32 = 1000;

/// Whose descriptor it is: the address is the name.
static NAME: AtomicU8 = AtomicU8::new(0);

/// What a connection has that was paused, from then on until it is freed: applications may know the descriptor by its
/// number for as long.
struct Paused {
    // First: nobody may ring a bell that is gone.
    question: Option<Question>,
    returns: u32,
    bell: Arc<EventFd>,
}

/// Who may look a session up for this handshake: in a job, paused or not and whoever started it, the handshake itself has
/// too little stack.
pub(super) fn asking(ssl: *mut SSL) -> Asking {
    // SAFETY: asks for this thread's job.
    let job = unsafe { sys::ASYNC_get_current_job() };
    match (job.is_null(), wait_ctx(ssl).is_some()) {
        (true, _) => Asking::Anyone,
        (false, false) => Asking::OnlyThreads,
        (false, true) => Asking::OnlyThreadsMeanwhile,
    }
}

/// Has the connection wait for `question`, if it can be paused; else gives it back.
pub(super) fn prepare(ssl: *mut SSL, question: Question) -> Option<Question> {
    let Some(ctx) = wait_ctx(ssl) else { return Some(question) };
    // SAFETY: the context is that of the running job, and this is the only reference to what is there.
    let Some(paused) = (unsafe { Paused::of(ctx).or_else(|| Paused::begin(ctx)) }) else {
        return Some(question);
    };
    if !question.inquiry.ring(&paused.bell) {
        return Some(question);
    }
    (paused.question, paused.returns) = (Some(question), 0);
    None
}

/// Whether there is still something to wait for.
pub(super) fn is_to_wait(ssl: *mut SSL) -> bool {
    // SAFETY: as in `prepare`.
    let paused = wait_ctx(ssl).and_then(|ctx| unsafe { Paused::of(ctx) });
    paused.is_some_and(|paused| {
        paused.returns += 1;
        let question = paused.question.as_ref();
        paused.returns <= MOST_RETURNS && question.is_some_and(|it| !it.inquiry.is_over())
    })
}

/// Goes back to the application, until it calls again for this connection, for whatever reason; perhaps never. `false`
/// when that fails.
pub(super) fn pause() -> bool {
    // SAFETY: `prepare` found a current job, and nothing on its stack has to be dropped.
    unsafe { sys::ASYNC_pause_job() == 1 }
}

/// Has `end` fetch the answer. The descriptor stays, and is not readable any more.
pub(super) fn conclude<T>(ssl: *mut SSL, end: impl FnOnce(Question) -> T) -> Option<T> {
    /// Also after a panic: an application would be told for ever to go on.
    struct Quiet(Arc<EventFd>);

    impl Drop for Quiet {
        fn drop(&mut self) {
            self.0.clear();
        }
    }

    // SAFETY: as in `prepare`; the reference ends before `end` is called.
    let paused = wait_ctx(ssl).and_then(|ctx| unsafe { Paused::of(ctx) })?;
    let (question, bell) = (paused.question.take()?, Arc::clone(&paused.bell));
    let _quiet = Quiet(bell);
    Some(end(question))
}

impl Paused {
    /// What the connection has from an earlier pause.
    ///
    /// # Safety
    /// `ctx` is valid, and no other reference from here is in use.
    unsafe fn of<'a>(ctx: *mut AsyncWaitCtx) -> Option<&'a mut Paused> {
        let (mut descriptor, mut paused) = (-1, ptr::null_mut());
        // SAFETY: the context is valid (caller), the others may be written; what is there under our name is what
        // `begin` put there.
        unsafe {
            let found =
                sys::ASYNC_WAIT_CTX_get_fd(ctx, name(), &raw mut descriptor, &raw mut paused);
            if found == 1 { paused.cast::<Paused>().as_mut() } else { None }
        }
    }

    /// # Safety
    /// As for [`Paused::of`], which found nothing.
    unsafe fn begin<'a>(ctx: *mut AsyncWaitCtx) -> Option<&'a mut Paused> {
        let bell = Arc::new(EventFd::new().ok()?);
        let number = bell.number();
        let paused = Box::into_raw(memory::try_box(Paused { question: None, returns: 0, bell })?);
        // SAFETY: the context is valid (caller) and owns `paused` from here on, unless it refuses; the function has the
        // signature that OpenSSL documents.
        unsafe {
            if sys::ASYNC_WAIT_CTX_set_wait_fd(ctx, name(), number, paused.cast(), Some(free)) == 1
            {
                return paused.as_mut();
            }
            drop(Box::from_raw(paused));
        }
        None
    }
}

fn name() -> *const c_void {
    ptr::from_ref(&NAME).cast()
}

/// Where a connection says what it waits for; `None` where it must not be paused: its application did not ask for it,
/// is told in another way than by descriptors, or speaks QUIC, where OpenSSL takes a pause for an error.
fn wait_ctx(ssl: *mut SSL) -> Option<*mut AsyncWaitCtx> {
    // SAFETY: the connection is valid in its callback; the mode is only read.
    let is_ready = unsafe {
        !is_quic(ssl)
            && openssl_sys::SSL_ctrl(ssl, sys::SSL_CTRL_MODE, 0, ptr::null_mut())
                & sys::SSL_MODE_ASYNC
                != 0
    };
    if !is_ready {
        return None;
    }
    // SAFETY: asks for this thread's job, which has a context for as long as it runs.
    let ctx = unsafe {
        let job = sys::ASYNC_get_current_job();
        if job.is_null() {
            return None;
        }
        sys::ASYNC_get_wait_ctx(job)
    };
    (!ctx.is_null() && !has_callback(ctx)).then_some(ctx)
}

#[cfg(ossl300)]
fn has_callback(ctx: *mut AsyncWaitCtx) -> bool {
    let (mut callback, mut data) = (None, ptr::null_mut());
    // SAFETY: the context is that of the running job; the others may be written.
    unsafe { sys::ASYNC_WAIT_CTX_get_callback(ctx, &raw mut callback, &raw mut data) == 1 }
}

#[cfg(not(ossl300))]
fn has_callback(_ctx: *mut AsyncWaitCtx) -> bool {
    false
}

/// The connection is freed, paused or not.
unsafe extern "C" fn free(
    _ctx: *mut AsyncWaitCtx,
    _name: *const c_void,
    _descriptor: c_int,
    paused: *mut c_void,
) {
    contained(|| {
        // SAFETY: what `begin` put there, once; nobody uses it after the context.
        drop(unsafe { Box::from_raw(paused.cast::<Paused>()) });
    });
}
