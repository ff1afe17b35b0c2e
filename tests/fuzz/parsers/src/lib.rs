//! What of the gateway reads bytes, from the gateway's own files; see the manifest beside this.

#[path = "../../../../src/config/mod.rs"]
pub mod config;
#[path = "../../../../src/message/mod.rs"]
pub mod message;
#[path = "../../../../src/registry/mod.rs"]
pub mod registry;
#[path = "../../../../src/routes.rs"]
pub mod routes;
#[path = "../../../../src/scan.rs"]
pub mod scan;
#[path = "../../../../src/watch.rs"]
pub mod watch;

/// HTTP/1.1 but for what needs a connection.
#[path = "../../../../src/http1"]
pub mod http1 {
    pub mod chunked;
    pub mod encode;
    pub mod head;
}

/// What routes carry and never look into: a plugin in use.
pub mod plugin {
    pub use crate::config::Kind;
    use std::sync::Arc;

    /// Versions that are tried.
    pub mod canary {
        /// A canary.
        #[derive(Debug)]
        pub struct Canary;

        /// A shadow.
        #[derive(Debug)]
        pub struct Shadow;
    }

    /// A use of a plugin.
    #[derive(Debug)]
    pub struct Binding;

    impl Binding {
        /// Any use.
        pub fn new(_slot: usize, _plugin: Arc<str>, _kind: Kind, _config: Arc<str>, _number: Number) -> Binding {
            Binding
        }
    }

    /// Gives out numbers.
    #[derive(Debug, Default)]
    pub struct Numbers;

    impl Numbers {
        /// Any number.
        pub fn take(&self) -> Number {
            Number
        }
    }

    /// The number of a use.
    #[derive(Debug)]
    pub struct Number;
}
