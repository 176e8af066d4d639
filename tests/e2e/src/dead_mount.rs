//! A file system whose server can die: FUSE without a library, with one directory and one file (linux/fuse.h).
//!
//! Nobody who opens `file` ever hears of it: such a process sleeps uninterruptibly, as on a dead NFS server. After the line
//! `die` on its stdin the server answers nothing at all, and at the end of stdin it takes the file system away.

use std::fs::File;
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const FILE: u64 = 2;
const DIRECTORY: u64 = 3;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

/// What the kernel is told.
enum Answer {
    Body(Vec<u8>),
    Error(i32),
    Silence,
}

/// Serves on `directory` until stdin ends.
pub fn serve(directory: &Path) -> anyhow::Result<ExitCode> {
    let device = File::options().read(true).write(true).open("/dev/fuse").context("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other\0", device.as_raw_fd());
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes())?;
    mount("dead", directory, "fuse", MountFlags::empty(), options).context("mount fuse")?;
    let dead = Arc::new(AtomicBool::new(false));
    let server = Arc::clone(&dead);
    std::thread::spawn(move || answer_all(device, &server));
    let mut stdout = std::io::stdout();
    writeln!(stdout, "mounted")?;
    for line in std::io::stdin().lock().lines() {
        if line? == "die" {
            dead.store(true, Ordering::SeqCst);
            writeln!(stdout, "dead")?;
        }
    }
    // Those who wait get an error when the device closes, which is with this process.
    unmount(directory, UnmountFlags::DETACH)?;
    Ok(ExitCode::SUCCESS)
}

fn answer_all(mut device: File, dead: &AtomicBool) {
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(length) = device.read(&mut buffer) {
        let request = &buffer[..length];
        let (operation, unique) = (number32(request, 4), number64(request, 8));
        let answer = if dead.load(Ordering::SeqCst) && operation != INIT {
            Answer::Silence
        } else {
            answer(operation, number64(request, 16), &request[40..])
        };
        let (error, body) = match answer {
            Answer::Silence => continue,
            Answer::Body(body) => (0, body),
            Answer::Error(error) => (-error, Vec::new()),
        };
        let mut reply = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(unique.to_ne_bytes());
        reply.extend(body);
        // The one who asked may have been killed.
        device.write_all(&reply).ok();
    }
}

fn answer(operation: u32, node: u64, body: &[u8]) -> Answer {
    match operation {
        INIT => Answer::Body(init()),
        GETATTR => Answer::Body([&[0; 16][..], &attributes(node)].concat()),
        LOOKUP => {
            let name = body.split(|byte| *byte == 0).next().unwrap_or_default();
            let node = match name {
                b"file" => FILE,
                b"dir" => DIRECTORY,
                _ => return Answer::Error(ENOENT),
            };
            // Valid for no time: each look asks again.
            Answer::Body([&node.to_ne_bytes()[..], &[0; 32], &attributes(node)].concat())
        }
        OPEN if node == FILE => Answer::Silence,
        FORGET | BATCH_FORGET | INTERRUPT => Answer::Silence,
        _ => Answer::Error(ENOSYS),
    }
}

/// `struct fuse_init_out` of version 7.31.
fn init() -> Vec<u8> {
    let mut out = Vec::new();
    for word in [7_u32, 31, 0x2_0000, 0, 0, 0x2_0000, 1] {
        out.extend(word.to_ne_bytes());
    }
    out.resize(64, 0);
    out
}

/// `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == FILE { 0o100_644 } else { 0o40_755 };
    let mut out = node.to_ne_bytes().to_vec();
    out.resize(60, 0);
    for word in [mode, 1_u32] {
        out.extend(word.to_ne_bytes());
    }
    out.resize(88, 0);
    out
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
