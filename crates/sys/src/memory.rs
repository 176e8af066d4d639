//! The allocator: the C library's, and mimalloc's for threads that say so.
//!
//! glibc keeps seven freed pieces of a size for each thread, and what goes beyond takes a lock: two fifths of a create were that.
//! mimalloc gives each thread pages of its own, 0.2 MB for each that does a bit of everything. So it serves the few threads that
//! make objects, and neither the many that wait for the disk, nor infra, which has 92 kB in all
//! (`docs/decisions/0011-mimalloc-for-the-daemon.md`).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libmimalloc_sys::{mi_is_in_heap_region, mi_manage_os_memory_ex};
use mimalloc::MiMalloc;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// Addresses that are set aside for mimalloc. Only what is written to becomes memory.
const REGION_BYTES: usize = 1 << 30;

/// Where they begin; 0 where there are none.
static REGION: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static IS_SERVED: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C" {
    /// What mimalloc does before the main function of each program that it is linked to, unless it was compiled with
    /// `MI_PRIM_HAS_PROCESS_ATTACH` (`.cargo/config.toml`).
    fn _mi_auto_process_init();
}

/// For `#[global_allocator]`.
#[derive(Debug)]
pub struct Heap;

impl Heap {
    /// Makes mimalloc ready for threads that want it, and bounds what the C library keeps of a burst for the others: it would give
    /// nearly each thread a heap of its own, where what was freed serves no other, and raise both thresholds by itself up to 32 and
    /// 64 MiB. To be called before there is a second thread. If the kernel gives no addresses, the C library serves all.
    pub fn prepare_for_threads() {
        const HEAPS: libc::c_int = 2;
        const THRESHOLD: libc::c_int = 128 * 1024;
        tune(libc::M_ARENA_MAX, HEAPS);
        tune(libc::M_MMAP_THRESHOLD, THRESHOLD);
        tune(libc::M_TRIM_THRESHOLD, THRESHOLD);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses addresses that are free.
        let mapped = unsafe {
            mmap_anonymous(ptr::null_mut(), REGION_BYTES, protection, MapFlags::PRIVATE | MapFlags::NORESERVE)
        };
        let Ok(region) = mapped else { return };
        // A huge page for each thread and size would come to 30 MB (Debian's kernel gives them unasked). A kernel without huge pages
        // refuses, and gives none either.
        // SAFETY: these addresses are nobody else's, and what they hold is not altered.
        unsafe { madvise(region, REGION_BYTES, Advice::LinuxNoHugepage) }.unwrap_or_default();
        // SAFETY: it has no conditions, and does nothing if it was called before.
        unsafe { _mi_auto_process_init() };
        // SAFETY: these addresses can be written to, hold zeros, and stay mimalloc's for as long as the process lives.
        let managed =
            unsafe { mi_manage_os_memory_ex(region, REGION_BYTES, true, false, true, -1, false, ptr::null_mut()) };
        if managed {
            REGION.store(region.addr(), Ordering::Relaxed);
        }
    }

    /// What the calling thread allocates from here on is mimalloc's, if that is ready.
    pub fn serve_this_thread() {
        IS_SERVED.set(REGION.load(Ordering::Relaxed) != 0);
    }
}

/// Whether mimalloc has allocated it.
fn is_of_mimalloc(piece: *mut u8) -> bool {
    let region = REGION.load(Ordering::Relaxed);
    if region == 0 {
        return false;
    }
    // What did not fit into the region is elsewhere.
    // SAFETY: it may be asked about any address.
    piece.addr().wrapping_sub(region) < REGION_BYTES || unsafe { mi_is_in_heap_region(piece.cast()) }
}

// SAFETY: both are sound allocators, and each gets only pieces of its own.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_SERVED.get() {
            // SAFETY: the caller's promise.
            unsafe { MiMalloc.alloc(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc(layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if IS_SERVED.get() {
            // SAFETY: the caller's promise.
            unsafe { MiMalloc.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc_zeroed(layout) }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if is_of_mimalloc(piece) {
            // SAFETY: the caller's promise, and it is its piece.
            unsafe { MiMalloc.dealloc(piece, layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.dealloc(piece, layout) }
        }
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if is_of_mimalloc(piece) {
            // SAFETY: the caller's promise, and it is its piece.
            unsafe { MiMalloc.realloc(piece, layout, bytes) }
        } else {
            // SAFETY: as above.
            unsafe { System.realloc(piece, layout, bytes) }
        }
    }
}

/// Makes the C library give memory back as soon as it is free: a process that idles for months after one burst of work must be as
/// small as before it. glibc would raise both thresholds by itself.
pub fn return_freed_memory() {
    const THRESHOLD: libc::c_int = 64 * 1024;
    tune(libc::M_MMAP_THRESHOLD, THRESHOLD);
    tune(libc::M_TRIM_THRESHOLD, THRESHOLD);
}

/// mallopt(3).
fn tune(parameter: libc::c_int, value: libc::c_int) {
    // SAFETY: it takes two numbers; what it does not know it refuses without effect.
    unsafe { libc::mallopt(parameter, value) };
}
