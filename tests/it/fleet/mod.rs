//! What a fleet shares through ZooKeeper: services that register themselves, routes, plugins.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use zookeeper_client::{Acls, Client, CreateMode, CreateOptions};

mod plugins;
mod register;
mod routes;

/// A znode that no other test of the run uses.
fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/{name}-{}", NEXT.fetch_add(1, Relaxed))
}

fn persistent() -> CreateOptions<'static> {
    CreateMode::Persistent.with_acls(Acls::anyone_all())
}

async fn exists(client: &Client, path: &str) -> bool {
    client.check_stat(path).await.unwrap().is_some()
}
