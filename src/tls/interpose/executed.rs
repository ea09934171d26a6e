//! Which processes are workers that their server executes instead of forking: nothing in memory is passed on to them. Such
//! a server has a way of its own to give all of them the same ticket keys, and it must not be worse off with us.
//!
//! Pure. Called by `ffi`, once in a process under the preload. Failure: what is not recognised is a server for itself.

#![forbid(unsafe_code)]

/// What Node's cluster module numbers its workers by. Node takes it out of the environment before the program begins.
const NODE: &[u8] = b"NODE_UNIQUE_ID=";

/// A worker that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Worker {
    /// Nobody of its server was there before: it speaks for all.
    pub(crate) is_first: bool,
}

/// The worker with this environment, in the form of /proc/PID/environ: each entry ends with NUL.
pub(crate) fn executed_worker(environment: &[u8]) -> Option<Worker> {
    let mut entries = environment.split(|byte| *byte == 0);
    let number = entries.find_map(|entry| entry.strip_prefix(NODE))?;
    Some(Worker { is_first: number == b"1" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_nodes_cluster_is_known_by_its_number() {
        let worker = |environment: &[u8]| executed_worker(environment).map(|it| it.is_first);
        assert_eq!(worker(b"A=b\0NODE_UNIQUE_ID=1\0C=d\0"), Some(true));
        assert_eq!(worker(b"NODE_UNIQUE_ID=12\0"), Some(false));
        for other in [&b""[..], b"\0\0", b"NODE_ENV=1\0", b"MY_NODE_UNIQUE_ID=1\0"] {
            assert_eq!(worker(other), None, "{other:?}");
        }
    }
}
