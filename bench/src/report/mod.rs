//! What people read of a run.

pub(crate) mod svg;
pub(crate) mod table;
