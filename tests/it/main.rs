//! The integration tests: one binary, so that there is one link.

mod config;
