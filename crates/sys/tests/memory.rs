//! [`Heap`] as the allocator of this program.

use std::sync::mpsc::channel;

use sys::memory::Heap;

#[global_allocator]
static HEAP: Heap = Heap;

const LINES: usize = 20_000;

fn line(number: usize) -> String {
    format!("{number}{}", "x".repeat(number % 3000))
}

fn check(lines: &[String]) {
    assert_eq!(lines.len(), LINES);
    assert!(lines.iter().enumerate().all(|(number, found)| *found == line(number)));
}

/// Whether it is in a mapping as large as the one that is set aside for mimalloc.
fn is_in_region(piece: &str) -> bool {
    let address = piece.as_ptr().addr();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let hexadecimal = |text: &str| usize::from_str_radix(text, 16).ok();
    let mut ranges = maps.lines().filter_map(|line| {
        let (begin, end) = line.split(' ').next()?.split_once('-')?;
        Some(hexadecimal(begin)?..hexadecimal(end)?)
    });
    ranges.find(|range| range.contains(&address)).is_some_and(|range| range.len() >= 1 << 30)
}

/// One test, since it changes the whole process.
#[test]
fn what_was_allocated_before_and_what_other_threads_have_allocated_can_be_resized_and_freed() {
    let before: Vec<String> = (0..LINES).map(line).collect();
    Heap::prepare_for_threads();
    assert!(!is_in_region(&line(100)), "a thread that did not ask is served");
    Heap::serve_this_thread();
    assert!(is_in_region(&line(100)), "a thread that asked is not served");

    // Old pieces grow, shrink and go, beside new ones in other threads.
    let (lines, ended) = channel();
    let makers: Vec<_> = (0..4)
        .map(|number| {
            let lines = lines.clone();
            std::thread::spawn(move || {
                if number % 2 == 0 {
                    Heap::serve_this_thread();
                }
                lines.send((0..LINES).map(line).collect::<Vec<String>>()).unwrap();
            })
        })
        .collect();
    drop(lines);
    let mut before = before;
    check(&before);
    for (number, old) in before.iter_mut().enumerate() {
        old.push_str(&line(number));
        old.truncate(line(number).len());
        old.shrink_to_fit();
    }
    check(&before);
    for lines in ended {
        check(&lines);
    }
    for maker in makers {
        maker.join().unwrap();
    }

    // More than the region has: only asked for, never written to.
    let mut large: Vec<u8> = Vec::with_capacity(3 << 30);
    large.extend_from_slice(b"large");
    large.shrink_to_fit();
    assert_eq!(large, b"large");
    assert_eq!(vec![0_u64; 1 << 20].iter().sum::<u64>(), 0);
}
