//! Work that waits for the disk.

use tokio::task::JoinError;

/// Does it on a thread that may wait. In tests it is done at once by whoever asks, so that nothing depends on threads:
/// a test's time passes once all tasks wait, and a simulation does the same every time.
pub(crate) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if cfg!(test) { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
}
