//! What the gateways of a fleet share through ZooKeeper besides services: routes, and which versions of plugins serve.
//!
//! How znodes are followed is [`crate::registry::zookeeper::texts`]'s business, and what may be written in them is
//! [`crate::config::remote`]'s. Here the last good one of each is kept, also on disk.

/// What the API and the metrics call the routes in ZooKeeper, beside the registries.
pub const ROUTES: &str = "zookeeper-routes";

/// The same for the versions of plugins.
pub const PLUGINS: &str = "zookeeper-plugins";

mod fetch;
pub mod kept;
pub mod plugins;
pub mod routes;
pub mod start;
