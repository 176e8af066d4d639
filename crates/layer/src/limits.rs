//! Bounds on what a layer may make the engine do, and the disk space that unpacking leaves free.

use std::os::fd::BorrowedFd;

use rustix::fs::{StatVfs, fstatvfs};

/// One extended header, or long name, of a tar archive; Go's reader has the same bound.
pub const TAR_EXTENSION_BYTES: u64 = 1 << 20;
/// Segments of one sparse file.
pub const SPARSE_SEGMENTS: usize = 100_000;
/// A path, as the kernel bounds it (`PATH_MAX` without its NUL).
pub const PATH_BYTES: usize = 4095;
/// One name of a path (`NAME_MAX`).
pub const NAME_BYTES: usize = 255;
/// Names in one path.
pub const PATH_DEPTH: usize = 255;

/// Bounds of one layer. Tests lower them.
#[derive(Debug, Clone)]
pub struct LayerLimits {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of the decompressed archive, and of the files in it (a sparse file may be larger than its archive).
    pub bytes: u64,
    /// Bytes of all directory names together: they stay in memory until the layer is done.
    pub directory_name_bytes: usize,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self { entries: 1_000_000, bytes: 256 << 30, directory_name_bytes: 64 << 20 }
    }
}

/// The file system that images are unpacked into is too full.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpaceError {
    /// Free bytes run low.
    #[error("the disk has {free} bytes free; unpacking stops at {reserve}, so that the machine goes on running")]
    Bytes {
        /// Free now.
        free: u64,
        /// What is left for others.
        reserve: u64,
    },
    /// Free inodes run low.
    #[error("the disk has {free} inodes free; unpacking stops at {reserve}, so that the machine goes on running")]
    Inodes {
        /// Free now.
        free: u64,
        /// What is left for others.
        reserve: u64,
    },
}

/// Checks now and then that unpacking leaves the machine some disk space.
pub struct SpaceCheck {
    unchecked_bytes: u64,
    unchecked_entries: u32,
}

impl Default for SpaceCheck {
    fn default() -> Self {
        Self { unchecked_bytes: Self::EVERY_BYTES, unchecked_entries: 0 }
    }
}

impl SpaceCheck {
    const EVERY_BYTES: u64 = 32 << 20;
    const EVERY_ENTRIES: u32 = 4096;

    /// To be called before `bytes` more are written for one more entry.
    pub fn before_write(&mut self, directory: BorrowedFd<'_>, bytes: u64) -> std::io::Result<Result<(), SpaceError>> {
        self.unchecked_bytes = self.unchecked_bytes.saturating_add(bytes);
        self.unchecked_entries += 1;
        if self.unchecked_bytes < Self::EVERY_BYTES && self.unchecked_entries < Self::EVERY_ENTRIES {
            return Ok(Ok(()));
        }
        self.unchecked_bytes = 0;
        self.unchecked_entries = 0;
        Ok(enough_space(&fstatvfs(directory)?, bytes))
    }
}

/// Leaves a twentieth of the file system free, but never asks for more than 1 GiB and 10,000 inodes.
fn enough_space(statistics: &StatVfs, bytes: u64) -> Result<(), SpaceError> {
    let free = statistics.f_bavail.saturating_mul(statistics.f_frsize);
    let reserve = (statistics.f_blocks.saturating_mul(statistics.f_frsize) / 20).min(1 << 30);
    if free < reserve.saturating_add(bytes) {
        return Err(SpaceError::Bytes { free, reserve });
    }
    let reserve = (statistics.f_files / 20).min(10_000);
    // File systems without a fixed number of inodes, such as btrfs, say 0.
    if statistics.f_files > 0 && statistics.f_favail < reserve {
        return Err(SpaceError::Inodes { free: statistics.f_favail, reserve });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::StatVfsMountFlags;

    use super::*;

    fn statistics(blocks: u64, free_blocks: u64, files: u64, free_files: u64) -> StatVfs {
        StatVfs {
            f_bsize: 4096,
            f_frsize: 4096,
            f_blocks: blocks,
            f_bfree: free_blocks,
            f_bavail: free_blocks,
            f_files: files,
            f_ffree: free_files,
            f_favail: free_files,
            f_fsid: 0,
            f_flag: StatVfsMountFlags::empty(),
            f_namemax: 255,
        }
    }

    #[test]
    fn some_space_and_inodes_stay_free() {
        let small = 100_000; // 400 MB: the reserve is 20 MB, 5,000 blocks
        assert_eq!(enough_space(&statistics(small, 5_000, 0, 0), 0), Ok(()));
        assert!(matches!(enough_space(&statistics(small, 4_999, 0, 0), 0), Err(SpaceError::Bytes { .. })));
        assert!(matches!(enough_space(&statistics(small, 5_000, 0, 0), 1), Err(SpaceError::Bytes { .. })));
        let large = 1 << 30; // 4 TiB: the reserve is 1 GiB
        assert_eq!(enough_space(&statistics(large, 1 << 18, 1000, 50), 0), Ok(()));
        let full = enough_space(&statistics(large, 1 << 18, 1000, 49), 0);
        assert_eq!(full, Err(SpaceError::Inodes { free: 49, reserve: 50 }));
    }
}
