//! `sessions`: what is done to the session cache.

use serde_json::json;
use tlsresume::clock;
use tlsresume::engine::Engine;

use crate::output::{Failure, Output};

pub(crate) fn flush(engine: &Engine, out: Output) -> Result<(), Failure> {
    let forgotten = engine.report(clock::now()).sessions_live;
    engine.flush_sessions()?;
    out.print(
        || json!({ "forgotten": forgotten }),
        || format!("forgot {forgotten} stored sessions; tickets that hold their session remain"),
    )
}
