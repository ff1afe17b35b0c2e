//! Writes headers and notes without end, and answers with the number of bytes that were taken, from the tenth request on with a
//! head that is too large.

use moongate_plugin::Reply;

fixtures::on_request!(|request| {
    let value = "v".repeat(1000);
    let taken = (0..10_000).take_while(|_| request.append("x-huge", &value)).count();
    let noted = request.note(&vec![0; 1 << 20]);
    let mut headers = vec![("x-taken".to_string(), taken.to_string()), ("x-noted".to_string(), noted.to_string())];
    if request.path().contains("more") {
        headers.extend((0..1000).map(|_| ("x-more".to_string(), value.clone())));
    }
    Verdict::Respond(Reply { status: 200, headers, body: Vec::new() })
});
