//! What the publisher waits for, where it may not be there to be waited for.

use std::time::Instant;

use tokio::sync::watch;

use crate::registry::zookeeper::texts::Texts;

/// Completes when there are other texts; never where there are none.
pub(super) async fn others(texts: &mut Option<watch::Receiver<Texts>>) -> Result<(), watch::error::RecvError> {
    match texts {
        Some(texts) => texts.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits for a moment; for ever if there is none.
pub(super) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
