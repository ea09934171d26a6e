//! Contexts of the `openssl` crate.
//!
//! Owns: nothing. Called by: `realm`. Threads and forks: as `attach`. Failure: as `attach`.

use std::sync::Arc;

use openssl::ssl::SslContextBuilder;

use super::attach::attach;
use crate::engine::Engine;
use crate::error::Result;

/// Attaches the context that is being built to a realm.
///
/// # Errors
/// As [`attach`].
pub(crate) fn attach_builder(engine: Arc<Engine>, context: &mut SslContextBuilder) -> Result<()> {
    // SAFETY: a builder has a valid context, and lends it to nobody else while it is borrowed for a change.
    unsafe { attach(engine, context.as_ptr()) }
}
