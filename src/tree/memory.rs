//! How the allocator hands memory out. It decides nothing else.
#![allow(unsafe_code, reason = "a setting of the allocator that no crate wraps")]

/// The most pools of memory.
#[cfg(target_env = "gnu")]
const ARENAS: std::ffi::c_int = 2;

/// Lets all threads share two pools. The GNU C library makes eight for every processor, and what one thread frees is
/// not there for another: of the same plan it would hold a fifth more memory. What is done per packet allocates nothing,
/// so that nobody waits for a pool. Call it before there are threads.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        use nix::libc;
        // SAFETY: it takes two numbers and sets one of the allocator's own under its own lock. Where it cannot, it says 0
        // and nothing changes.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    }
}
