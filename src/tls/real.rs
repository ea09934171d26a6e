//! The functions that the preload interposes, as the library itself must call them.
//!
//! The preload's definitions come first for whoever looks a symbol up, the library included, which would then talk to
//! itself. So it calls these functions through a table: the linked ones, or what the preload found behind its own.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::functions::Functions;
use super::sys;

/// NULL as long as nobody interposes.
static BEHIND: AtomicPtr<Functions> = AtomicPtr::new(ptr::null_mut());

/// As the linker has them.
static LINKED: Functions = Functions {
    ctx_new: sys::SSL_CTX_new,
    #[cfg(ossl300)]
    ctx_new_ex: Some(sys::SSL_CTX_new_ex),
    #[cfg(not(ossl300))]
    ctx_new_ex: None,
    new: sys::SSL_new,
    // Called by the application alone.
    new_listener: None,
    new_listener_from: None,
    set_ssl_ctx: sys::SSL_set_SSL_CTX,
    set_connect_state: sys::SSL_set_connect_state,
    connect: sys::SSL_connect,
    ctx_ctrl: sys::SSL_CTX_ctrl,
    ctx_callback_ctrl: sys::SSL_CTX_callback_ctrl,
    ctx_sess_set_new_cb: sys::SSL_CTX_sess_set_new_cb,
    ctx_sess_get_new_cb: sys::SSL_CTX_sess_get_new_cb,
    ctx_sess_set_get_cb: sys::SSL_CTX_sess_set_get_cb,
    ctx_sess_get_get_cb: sys::SSL_CTX_sess_get_get_cb,
    ctx_sess_set_remove_cb: sys::SSL_CTX_sess_set_remove_cb,
    ctx_sess_get_remove_cb: sys::SSL_CTX_sess_get_remove_cb,
    #[cfg(ossl300)]
    ctx_set_ticket_key_evp_cb: Some(sys::SSL_CTX_set_tlsext_ticket_key_evp_cb),
    #[cfg(not(ossl300))]
    ctx_set_ticket_key_evp_cb: None,
    ctx_set_num_tickets: sys::SSL_CTX_set_num_tickets,
    ctx_get_num_tickets: sys::SSL_CTX_get_num_tickets,
    ctx_set_timeout: sys::SSL_CTX_set_timeout,
    ctx_get_timeout: sys::SSL_CTX_get_timeout,
    ctx_set_options: sys::SSL_CTX_set_options,
    ctx_clear_options: sys::SSL_CTX_clear_options,
    ctx_set_generate_session_id: sys::SSL_CTX_set_generate_session_id,
    ctx_set_session_id_context: sys::SSL_CTX_set_session_id_context,
    ctx_set_allow_early_data_cb: sys::SSL_CTX_set_allow_early_data_cb,
    set_allow_early_data_cb: sys::SSL_set_allow_early_data_cb,
    set_session_id_context: sys::SSL_set_session_id_context,
    get_info_callback: sys::SSL_get_info_callback,
    set_info_callback: sys::SSL_set_info_callback,
    set_options: sys::SSL_set_options,
    clear_options: sys::SSL_clear_options,
};

/// The functions as libssl has them.
pub(super) fn libssl() -> &'static Functions {
    // SAFETY: NULL, or a table that is valid for ever (`interposed`).
    unsafe { BEHIND.load(Ordering::Acquire).as_ref() }.unwrap_or(&LINKED)
}

/// Whether somebody interposes.
pub(super) fn is_interposed() -> bool {
    !BEHIND.load(Ordering::Acquire).is_null()
}

/// From now on these are the functions as libssl has them.
pub(super) fn interposed(behind: &'static Functions) {
    BEHIND.store(ptr::from_ref(behind).cast_mut(), Ordering::Release);
}
