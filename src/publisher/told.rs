//! What is told of configurations, as events.

use crate::config::mistakes::Mistakes;
use crate::events::{Kind, Level, News};

/// That a configuration was taken over, which has so many explicit routes.
pub(super) fn applied(routes: usize) -> News {
    let text = format!("A new configuration serves, with {routes} explicit routes.");
    let (kind, level, fields) = (Kind::Config, Level::Info, serde_json::json!({ "routes": routes }));
    News { kind, level, what: "applied", subject: "configuration".into(), text, fields }
}

/// That a configuration changes nothing, and why.
pub fn refused(mistakes: &Mistakes) -> News {
    let count = mistakes.all.len();
    let text = format!("The new configuration was refused, and the one before stays: {count} mistakes.");
    let text = if count == 1 { text.replace("mistakes", "mistake") } else { text };
    let fields = serde_json::json!({ "mistakes": mistakes.to_string() });
    let (kind, level, subject) = (Kind::Config, Level::Error, "configuration".into());
    News { kind, level, what: "refused", subject, text, fields }
}
