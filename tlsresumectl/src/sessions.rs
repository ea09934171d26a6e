//! `sessions`: what is done to the session cache.

use serde_json::json;
use tlsresume::clock;
use tlsresume::engine::Engine;

use crate::output::{Exit, Failure, Output};
use crate::reach::Reach;

pub(crate) fn flush(engine: &Engine, out: Output) -> Result<Exit, Failure> {
    let forgotten = engine.report(clock::now()).sessions_live;
    engine.flush_sessions()?;
    let reach = Reach::of_change(engine);
    out.print(
        || reach.add_to(json!({ "forgotten": forgotten })),
        || {
            format!(
                "forgot {forgotten} stored sessions: {}\ntickets that hold their session remain until their key is \
                 revoked",
                reach.text()
            )
        },
    )?;
    Ok(reach.conclude())
}
