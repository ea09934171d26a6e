//! Children of tests.

/// Whether this holds in a child that is forked off here and now. The child has this thread alone.
pub(crate) fn holds_in_a_child(claim: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child ends without returning to what it has inherited, and is waited for here.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork");
        if child == 0 {
            // A hang is an end, too.
            libc::alarm(60);
            libc::_exit(if claim() { 0 } else { 1 });
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        status == 0
    }
}
