//! Answers every request itself.

use moongate_plugin::Reply;

fixtures::on_request!(|_| {
    let headers = vec![("x-why".to_string(), "because".to_string())];
    Verdict::Respond(Reply { status: 403, headers, body: b"no".to_vec() })
});
