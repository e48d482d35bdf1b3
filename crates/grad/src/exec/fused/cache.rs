//! Programs, kept by structure.

use rustc_hash::FxHashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::compile::compile;
use super::program::{Kernel, Program};

/// The program for `kernel`, compiled when this structure is met for the first time.
pub(super) fn compiled(kernel: &Kernel) -> Arc<Program> {
    static CACHE: LazyLock<Mutex<FxHashMap<Kernel, Arc<Program>>>> = LazyLock::new(Mutex::default);
    /// Far more structures than a training loop has; a program that is met only once must not pile
    /// up.
    const MOST: usize = 4096;

    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = cache.get(kernel) {
        return program.clone();
    }
    if cache.len() == MOST {
        cache.clear();
    }
    let program = Arc::new(compile(kernel));
    cache.insert(kernel.clone(), program.clone());
    program
}
