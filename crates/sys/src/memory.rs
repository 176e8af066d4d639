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
