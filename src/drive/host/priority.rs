//! Priority of threads that must not delay receiving.

/// Niceness added to threads for hashing and writing.
const NICENESS: i32 = 3;

/// Lowers the priority of this thread: hashing and writing must not delay receiving, since late
/// datagrams are lost and retransmitted.
pub(super) fn lower_priority() {
    // Applies to this thread and its children.
    if let Err(e) = rustix::process::nice(NICENESS) {
        tracing::debug!("cannot lower the priority of a thread: {e}");
    }
}
