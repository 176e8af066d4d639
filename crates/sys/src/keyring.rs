//! Kernel keyrings (keyrings(7)).

use std::io;

/// Gives the calling process a new, empty, anonymous session keyring (keyctl_join_session_keyring(3)).
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let anonymous: *const libc::c_char = std::ptr::null();
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING takes a name or a null pointer, which asks for an anonymous keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
