//! Small numbers that are used again: guests keep their bindings in arrays, so these stay dense.

use std::sync::{Arc, Mutex, PoisonError};

/// Hands out the lowest numbers that are free.
#[derive(Clone, Debug, Default)]
pub struct Numbers(Arc<Mutex<Free>>);

#[derive(Debug, Default)]
struct Free {
    next: u32,
    // Ordered, so that the lowest goes out first and a guest's array can stay short.
    returned: std::collections::BTreeSet<u32>,
}

/// A number that goes back when it is dropped.
#[derive(Debug)]
pub struct Number {
    value: u32,
    home: Numbers,
}

impl Numbers {
    /// The lowest free number.
    pub fn take(&self) -> Number {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = free.returned.pop_first().unwrap_or_else(|| {
            free.next += 1;
            free.next - 1
        });
        Number { value, home: self.clone() }
    }
}

impl Number {
    /// The number itself.
    pub fn value(&self) -> u32 {
        self.value
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).returned.insert(self.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_goes_out() {
        let numbers = Numbers::default();
        let mut taken: Vec<_> = (0..3).map(|_| numbers.take()).collect();
        drop(taken.remove(1));
        drop(taken.remove(0));
        assert_eq!([numbers.take().value(), taken[0].value()], [0, 2]);
    }
}
