//! Requests and responses as the gateway reads them: the rules by which their parts are judged, no input or output.

pub mod authority;
pub mod forwarded;
pub mod names;
pub mod path;
