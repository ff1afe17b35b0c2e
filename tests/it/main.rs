//! The one integration binary: every test talks to real sockets, waits for conditions and skips nothing.

mod registry;
mod support;
