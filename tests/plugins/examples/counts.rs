//! Answers with the number of requests that had the same query, whichever worker they came to; with `short` in the query,
//! within the last 300 milliseconds.

use std::time::Duration;

use moongate_plugin::{Reply, store};

fixtures::on_request!(|request| {
    let path = request.path();
    let name = path.split_once('?').map_or("", |(_, query)| query);
    let lasts = name.contains("short").then_some(Duration::from_millis(300));
    loop {
        let before = store::number(name);
        if store::exchange(name, before, before + 1, lasts).is_ok() {
            let body = (before + 1).to_string().into_bytes();
            return Verdict::Respond(Reply { status: 200, headers: Vec::new(), body });
        }
    }
});
