//! How the allocator hands memory out. It decides nothing else.
#![allow(unsafe_code, reason = "a setting of the allocator that no crate wraps")]

/// The most pools of memory.
#[cfg(target_env = "gnu")]
const ARENAS: std::ffi::c_int = 2;
/// What has at least this many bytes is the system's own pages: what waits for the network or a disk, and the lists of
/// large files.
#[cfg(target_env = "gnu")]
const OWN_PAGES: std::ffi::c_int = 256 << 10;
/// More bytes than this at the end of a pool go back to the system.
#[cfg(target_env = "gnu")]
const UNUSED: std::ffi::c_int = 512 << 10;

/// Settles how memory is handed out, unless the environment says it. Call it before there are threads.
///
/// All threads share two pools. The GNU C library makes eight for every processor, and what one thread frees is not
/// there for another: of the same plan it would hold a fifth more memory. What is done per packet allocates nothing, so
/// that nobody waits for a pool.
///
/// What is large goes back to the system as soon as it is freed. By itself the library takes large pieces from the pools
/// once one was freed, where small ones that live longer keep them from going back: a host that took 10 GB held twice
/// the memory that it used.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    {
        use nix::libc;
        set("MALLOC_ARENA_MAX", libc::M_ARENA_MAX, ARENAS);
        set("MALLOC_MMAP_THRESHOLD_", libc::M_MMAP_THRESHOLD, OWN_PAGES);
        set("MALLOC_TRIM_THRESHOLD_", libc::M_TRIM_THRESHOLD, UNUSED);
    }
}

/// Sets one of the allocator's parameters, unless the environment has `variable`.
#[cfg(target_env = "gnu")]
fn set(variable: &str, parameter: std::ffi::c_int, value: std::ffi::c_int) {
    if std::env::var_os(variable).is_none() {
        // SAFETY: it takes two numbers and sets one of the allocator's own under its own lock. Where it cannot, it says 0
        // and nothing changes.
        unsafe { nix::libc::mallopt(parameter, value) };
    }
}
