//! Memory kept from one evaluation for the next. Fresh pages cost more than most losses compute.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Vectors to write into, their elements arbitrary. Taken from this thread's pool, and put back
/// when dropped.
pub(in crate::exec) struct Pool<T: 'static> {
    free: Free<T>,
    home: &'static LocalKey<RefCell<Free<T>>>,
}

struct Free<T> {
    arrays: Vec<Vec<T>>,
    /// For the registers of kernels, which run one after another.
    registers: Vec<T>,
}

/// As many vectors are kept as a big loss has intermediate arrays.
const MOST: usize = 64;

impl<T> Free<T> {
    const NONE: Free<T> = Free { arrays: Vec::new(), registers: Vec::new() };
}

impl<T> Default for Free<T> {
    fn default() -> Free<T> {
        Free::NONE
    }
}

thread_local! {
    static F32: RefCell<Free<f32>> = const { RefCell::new(Free::NONE) };
    static F64: RefCell<Free<f64>> = const { RefCell::new(Free::NONE) };
}

pub(super) fn of_f32() -> Pool<f32> {
    Pool { free: F32.take(), home: &F32 }
}

pub(super) fn of_f64() -> Pool<f64> {
    Pool { free: F64.take(), home: &F64 }
}

impl<T: Copy + Default> Pool<T> {
    /// A vector of `len` elements, of any values.
    pub(super) fn take(&mut self, len: usize) -> Vec<T> {
        // The smallest that is large enough, and not so large that a request it would suit better
        // goes without.
        let suits = |v: &Vec<T>| (len..=2 * len.max(512)).contains(&v.capacity());
        let fits = self.free.arrays.iter().enumerate().filter(|(_, v)| suits(v));
        let best = fits.min_by_key(|(_, v)| v.capacity()).map(|(at, _)| at);
        let mut vector = best
            .map(|at| self.free.arrays.swap_remove(at))
            .unwrap_or_else(|| Vec::with_capacity(len));
        vector.resize(len, T::default());
        vector
    }
}

impl<T> Pool<T> {
    /// The vector that [`give_registers`](Pool::give_registers) was given last.
    pub(super) fn take_registers(&mut self) -> Vec<T> {
        std::mem::take(&mut self.free.registers)
    }

    pub(super) fn give_registers(&mut self, registers: Vec<T>) {
        self.free.registers = registers;
    }

    pub(super) fn give(&mut self, vector: Vec<T>) {
        if vector.capacity() > 0 && self.free.arrays.len() < MOST {
            self.free.arrays.push(vector);
        }
    }
}

impl<T: 'static> Drop for Pool<T> {
    fn drop(&mut self) {
        self.home.set(std::mem::take(&mut self.free));
    }
}
