//! What one instance may take of memory and tables, and how much memory it has taken.

use wasmtime::{ResourceLimiter, Result, StoreLimits};

/// The limits of one instance, asked by the engine before it gives more.
pub(crate) struct Bounds {
    limits: StoreLimits,
    memory: u64,
}

impl Bounds {
    /// Nothing taken yet.
    pub(crate) fn new(limits: StoreLimits) -> Bounds {
        Bounds { limits, memory: 0 }
    }

    /// Bytes of all linear memories together. They never shrink.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let allowed = self.limits.memory_growing(current, desired, maximum)?;
        if allowed {
            self.memory += desired.saturating_sub(current) as u64;
        }
        Ok(allowed)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> Result<()> {
        self.limits.memory_grow_failed(error)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> Result<()> {
        self.limits.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::StoreLimitsBuilder;

    use super::*;

    #[test]
    fn what_was_allowed_is_counted_and_what_was_not_is_not() {
        let mut bounds = Bounds::new(StoreLimitsBuilder::new().memory_size(4 << 16).build());
        assert!(bounds.memory_growing(0, 1 << 16, None).unwrap());
        assert!(bounds.memory_growing(1 << 16, 3 << 16, None).unwrap());
        assert!(!bounds.memory_growing(3 << 16, 5 << 16, None).unwrap());
        assert!(bounds.memory_growing(0, 1 << 16, None).unwrap(), "each memory has the limit for itself");
        assert_eq!(bounds.memory(), 4 << 16);
    }
}
