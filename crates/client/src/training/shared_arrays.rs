//! Arrays of a model's steps that others may hold for a while.

use std::{
    iter,
    sync::{Arc, Mutex, PoisonError},
};

/// Most arrays that are kept; the oldest goes.
const KEPT: usize = 8;
/// Smaller ones cost nothing to take anew.
const SMALL: usize = 16_384;

/// Arrays that are filled in every step anew and are free again when nobody else holds them: fresh
/// memory of a few megabytes costs more than filling it. Only one of the same length can be used
/// again, since a leaf of a graph is a whole array.
#[derive(Debug, Default)]
pub(crate) struct SharedArrays(Mutex<Vec<Arc<[f32]>>>);

impl SharedArrays {
    /// An array of this length with what `fill` writes to it; what is in it before is of no
    /// meaning.
    pub fn filled(&self, length: usize, fill: impl FnOnce(&mut [f32])) -> Arc<[f32]> {
        let mut array = self.take(length).unwrap_or_else(|| iter::repeat_n(0.0, length).collect());
        // Nobody else holds it, so nothing is copied.
        fill(Arc::make_mut(&mut array));
        if length >= SMALL {
            self.keep(array.clone());
        }
        array
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self, length: usize) -> Option<Arc<[f32]>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free =
            |array: &mut Arc<[f32]>| array.len() == length && Arc::get_mut(array).is_some();
        let free = kept.iter_mut().position(is_free)?;
        Some(kept.remove(free))
    }

    fn keep(&self, array: Arc<[f32]>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push(array);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_used_again_when_nobody_holds_it_and_its_length_fits() {
        let arrays = SharedArrays::default();
        let of = |length: usize, x: f32| arrays.filled(length, |array| array.fill(x));
        let first = of(SMALL, 1.0);
        let at = first.as_ptr();
        let second = of(SMALL, 2.0);
        assert_ne!(second.as_ptr(), at);
        assert_eq!((first[0], second[SMALL - 1]), (1.0, 2.0));
        drop(first);
        assert_ne!(of(SMALL + 1, 3.0).as_ptr(), at);
        let again = of(SMALL, 4.0);
        assert_eq!((again.as_ptr(), again[0], second[0]), (at, 4.0, 2.0));
    }

    #[test]
    fn a_few_are_kept_and_small_ones_are_not() {
        let arrays = SharedArrays::default();
        for i in 0..20 {
            drop(arrays.filled(SMALL + i, |_| ()));
            drop(arrays.filled(i, |_| ()));
        }
        let lengths: Vec<usize> = arrays.0.lock().unwrap().iter().map(|it| it.len()).collect();
        assert_eq!(lengths, (12..20).map(|i| SMALL + i).collect::<Vec<_>>());
    }
}
