//! The C library's allocator (mallopt(3)).

/// Makes the allocator give memory back as soon as it is free: a process that idles for months after one burst of work
/// must be as small as before it. glibc would raise both thresholds by itself.
pub fn return_freed_memory() {
    const THRESHOLD: libc::c_int = 64 * 1024;
    // SAFETY: mallopt takes two numbers; an unknown parameter is refused without effect.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD) };
    // SAFETY: as above.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD) };
}

/// Bounds what a process with many threads keeps of a burst. glibc gives nearly each thread a heap of its own, where what was
/// freed serves no other, and raises both thresholds by itself up to 32 and 64 MiB. To be called before there is a second thread.
pub fn bound_free_memory() {
    const HEAPS: libc::c_int = 2;
    const THRESHOLD: libc::c_int = 128 * 1024;
    // SAFETY: mallopt takes two numbers; an unknown parameter is refused without effect.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
    // SAFETY: as above.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD) };
    // SAFETY: as above.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD) };
}
