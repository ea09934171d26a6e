//! The allocator of the library: malloc(3), and a reserve for where that has no memory.
//!
//! The reserve is 512 KiB of static memory in blocks, which are not touched as long as malloc has memory. Small allocations
//! that cannot fail come from there. Whoever asks for much looks first ([`is_at_hand`]), and what lives long is made by
//! [`super::memory`].
//!
//! A program has one Rust allocator: a Rust server that has one of its own leaves the cargo feature `reserve` out.
//!
//! Owns: the reserve. Called by: Rust's allocations, and [`super::memory`]. Threads: no lock, and no variable of a thread's.
//! Forks: children have a copy, in which blocks that other threads had are lost. Failure: where the reserve is used up too,
//! Rust ends the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Whether at least half of each kind of block is there.
pub(super) fn is_at_hand() -> bool {
    RESERVE.in_use.load(Ordering::Relaxed) == 0 || RESERVE.is_at_hand()
}

/// Takes back what the reserve gave; false for other memory.
pub(super) fn give_back(memory: *mut u8) -> bool {
    RESERVE.give_back(memory)
}

// SAFETY: what malloc gives goes back to malloc, what the reserve gives to the reserve: addresses tell them apart. Both
// give memory as large and as aligned as was asked for, to one owner at a time. Nothing here unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout has a size (caller).
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() { RESERVE.take(layout) } else { memory }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout has a size (caller).
        let memory = unsafe { System.alloc_zeroed(layout) };
        if !memory.is_null() {
            return memory;
        }
        let block = RESERVE.take(layout);
        if !block.is_null() {
            // SAFETY: the block is ours and as long as the layout.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if !RESERVE.give_back(memory) {
            // SAFETY: what is not of the reserve came from System, with this layout (caller).
            unsafe { System.dealloc(memory, layout) };
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let is_of_reserve = RESERVE.place_of(memory).is_some();
        if !is_of_reserve {
            // SAFETY: as in `dealloc`; the new size is not zero (caller).
            let moved = unsafe { System.realloc(memory, layout, new_size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the new size fits with this alignment (caller). Both places are valid for the shorter of the two sizes
        // and do not overlap, for the old one is not given back yet.
        unsafe {
            let new = Layout::from_size_align_unchecked(new_size, layout.align());
            let moved = if is_of_reserve { self.alloc(new) } else { RESERVE.take(new) };
            if !moved.is_null() {
                ptr::copy_nonoverlapping(memory, moved, layout.size().min(new_size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }
}

/// Blocks of one size.
struct Class {
    size: usize,
    count: usize,
    /// Where they begin.
    offset: usize,
    /// Which words say which of them are taken.
    words: usize,
}

/// The longest are for a ring's bytes.
const CLASSES: [Class; 4] = [
    Class { size: 128, count: 512, offset: 0, words: 0 },
    Class { size: 512, count: 128, offset: 64 << 10, words: 8 },
    Class { size: 4 << 10, count: 32, offset: 128 << 10, words: 10 },
    Class { size: 64 << 10, count: 4, offset: 256 << 10, words: 11 },
];
const WORDS: usize = 12;
const LEN: usize = 512 << 10;

/// A block is as aligned as it is long, up to this.
const ALIGN: usize = align_of::<Blocks>();

#[repr(align(4096))]
struct Blocks(UnsafeCell<[u8; LEN]>);

struct Reserve {
    blocks: Blocks,
    /// A bit for each block.
    taken: [AtomicU64; WORDS],
    in_use: AtomicUsize,
}

// SAFETY: a block is used by who has set its bit.
unsafe impl Sync for Reserve {}

static RESERVE: Reserve = Reserve {
    blocks: Blocks(UnsafeCell::new([0; LEN])),
    taken: [const { AtomicU64::new(0) }; WORDS],
    in_use: AtomicUsize::new(0),
};

impl Class {
    fn words<'a>(&self, taken: &'a [AtomicU64; WORDS]) -> &'a [AtomicU64] {
        &taken[self.words..self.words + self.count.div_ceil(64)]
    }

    /// The bits of a word that are blocks.
    fn mask(&self) -> u64 {
        if self.count < 64 { (1 << self.count) - 1 } else { u64::MAX }
    }
}

impl Reserve {
    /// A block; NULL when there is none.
    #[cold]
    fn take(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        let fits = |class: &&Class| class.size >= size && class.size.min(ALIGN) >= align;
        let found = CLASSES.iter().filter(fits).find_map(|class| {
            let number = self.take_one(class)?;
            Some(class.offset + number * class.size)
        });
        let Some(offset) = found else { return ptr::null_mut() };
        self.in_use.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the classes lie within the blocks.
        unsafe { self.blocks.0.get().cast::<u8>().add(offset) }
    }

    fn take_one(&self, class: &Class) -> Option<usize> {
        class.words(&self.taken).iter().enumerate().find_map(|(at, word)| {
            loop {
                let free = !word.load(Ordering::Relaxed) & class.mask();
                let bit = free & free.wrapping_neg();
                if bit == 0 {
                    return None;
                }
                if word.fetch_or(bit, Ordering::Acquire) & bit == 0 {
                    return Some(at * 64 + bit.trailing_zeros() as usize);
                }
            }
        })
    }

    /// Where in the reserve this is, if it is.
    fn place_of(&self, memory: *mut u8) -> Option<usize> {
        let offset = memory.addr().wrapping_sub(self.blocks.0.get().addr());
        (offset < LEN).then_some(offset)
    }

    fn give_back(&self, memory: *mut u8) -> bool {
        let Some(offset) = self.place_of(memory) else { return false };
        if let Some(class) = CLASSES.iter().rev().find(|class| class.offset <= offset) {
            let number = (offset - class.offset) / class.size;
            self.in_use.fetch_sub(1, Ordering::Relaxed);
            self.taken[class.words + number / 64]
                .fetch_and(!(1 << (number % 64)), Ordering::Release);
        }
        true
    }

    /// Whether at least half of each class is there.
    fn is_at_hand(&self) -> bool {
        CLASSES.iter().all(|class| {
            let words = class.words(&self.taken).iter();
            let taken: u32 = words.map(|word| word.load(Ordering::Relaxed).count_ones()).sum();
            taken as usize * 2 <= class.count
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::super::forked::holds_in_a_child;
    use super::*;

    fn reserve() -> Box<Reserve> {
        let layout = Layout::new::<Reserve>();
        // SAFETY: zeros are a reserve of which nothing is taken; the Box frees it with the same layout.
        unsafe { Box::from_raw(System.alloc_zeroed(layout).cast::<Reserve>()) }
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a layout")
    }

    #[test]
    fn a_block_has_one_owner_and_is_there_again_when_it_is_given_back() {
        let reserve = reserve();
        let take_all = || {
            let blocks = std::iter::repeat_with(|| reserve.take(layout(100, 8)));
            let mut blocks: Vec<_> = blocks.take_while(|block| !block.is_null()).collect();
            blocks.sort_unstable();
            blocks
        };
        let blocks = take_all();
        assert_eq!(blocks.len(), CLASSES.iter().map(|class| class.count).sum::<usize>());
        assert!(blocks.windows(2).all(|pair| pair[1].addr() - pair[0].addr() >= 128));
        assert!(!reserve.is_at_hand());
        assert!(blocks.iter().all(|block| reserve.give_back(*block)));
        assert!(reserve.is_at_hand());
        assert_eq!(reserve.in_use.load(Ordering::Relaxed), 0);
        assert_eq!(take_all(), blocks);
    }

    #[test]
    fn a_block_is_as_long_and_as_aligned_as_was_asked_for() {
        let reserve = reserve();
        for (size, align) in [(1, 1), (128, 128), (129, 8), (8, 1024), (4097, 16), (65536, 4096)] {
            let block = reserve.take(layout(size, align));
            let offset = reserve.place_of(block).expect("is of the reserve");
            let class = CLASSES.iter().rfind(|class| class.offset <= offset).expect("a class");
            assert!(class.size >= size && block.addr().is_multiple_of(align), "{size}, {align}");
        }
        assert!(reserve.take(layout(65537, 1)).is_null(), "what is longer must be able to fail");
        assert!(reserve.take(layout(8, 8192)).is_null(), "the reserve itself is not so aligned");
    }

    /// Takes blocks and gives them back, until it is over. Nobody else may write to a block meanwhile.
    fn work(reserve: &Reserve, number: u8, is_over: &AtomicBool) {
        let sizes = [1, 100, 128, 500, 4000, 60_000];
        let mut next = sizes.iter().cycle();
        while !is_over.load(Ordering::Relaxed) {
            let Some(size) = next.next() else { return };
            let block = reserve.take(layout(*size, 8));
            if block.is_null() {
                continue;
            }
            // SAFETY: the block is ours until it is given back.
            unsafe {
                block.write_bytes(number, *size);
                thread::yield_now();
                assert!((0..*size).all(|at| block.add(at).read() == number));
            }
            assert!(reserve.give_back(block));
        }
    }

    #[test]
    fn threads_and_children_have_each_block_to_themselves() {
        let reserve = reserve();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for number in 1..=3 {
                let (reserve, is_over) = (&reserve, &is_over);
                scope.spawn(move || work(reserve, number, is_over));
            }
            let holds = (0..50).all(|_| {
                holds_in_a_child(|| {
                    // A child has what its parent did not use; what other threads had is lost to it, and no more.
                    let blocks = std::iter::repeat_with(|| reserve.take(layout(100, 8)));
                    let mut blocks: Vec<_> = blocks.take_while(|block| !block.is_null()).collect();
                    let all: usize = CLASSES.iter().map(|class| class.count).sum();
                    let number = blocks.len();
                    blocks.sort_unstable();
                    blocks.dedup();
                    let is_whole = (all - 3..=all).contains(&number) && blocks.len() == number;
                    is_whole && blocks.iter().all(|block| reserve.give_back(*block))
                })
            });
            is_over.store(true, Ordering::Relaxed);
            assert!(holds);
        });
        let taken = reserve.taken.iter().map(|word| word.load(Ordering::Relaxed));
        assert!(taken.eq([0; WORDS]) && reserve.in_use.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn what_the_reserve_gave_grows_and_goes() {
        let (small, large) = (layout(100, 8), layout(1000, 8));
        let block = RESERVE.take(small);
        // SAFETY: the block has that layout, and is not used after it was moved; what it was moved to is freed once.
        unsafe {
            block.write_bytes(7, 100);
            let moved = ALLOCATOR.realloc(block, small, 1000);
            assert_eq!(RESERVE.place_of(moved), None, "malloc has memory");
            assert!((0..100).all(|at| moved.add(at).read() == 7));
            ALLOCATOR.dealloc(moved, large);
        }
    }
}
