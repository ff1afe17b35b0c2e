//! Who a request is from: strangers cannot change it, neither directly nor through a trusted proxy, and what is sent on
//! can be read.

use std::net::IpAddr;

use moongate::message::forwarded::{Forwarding, Own, Peer, Proto, Received};

use super::choice;

/// One digit, even: `Forwarded` is sent too. Then field lines, each after a letter: `f`, `p` and `h` for
/// `X-Forwarded-For`, `-Proto` and `-Host`, `F` for `Forwarded`.
pub fn forwarded(data: &[u8]) {
    let (chosen, data) = choice(data, 2);
    let standard = chosen == 0;
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let of = |letter: u8| -> Vec<&[u8]> { lines.iter().filter_map(|line| line.strip_prefix(&[letter])).collect() };
    let (mut x, proto, host, mut forwarded) = (of(b'f'), of(b'p'), of(b'h'), of(b'F'));

    let stranger = tell("192.0.2.1", &[&x, &proto, &host, &forwarded], standard, |told| {
        assert_eq!(told.client.to_string(), "192.0.2.1");
        format!("{told:?}")
    });
    let nothing = tell("192.0.2.1", &[&[], &[], &[], &[]], standard, |told| format!("{told:?}"));
    assert_eq!(stranger, nothing, "a stranger is believed");

    tell("10.0.0.1", &[&x, &proto, &host, &forwarded], standard, |one| {
        assert!(one.x_forwarded_for == "10.0.0.1" || one.x_forwarded_for.ends_with(", 10.0.0.1"), "{one:?}");
        assert!(one.forwarded.is_some() || !standard, "{one:?}");
        let sent = [&*one.x_forwarded_for, one.host.unwrap(), one.forwarded.as_deref().unwrap_or_default()];
        let visible = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        assert!(sent.iter().all(|it| visible(it) && it.len() < 10_000), "{one:?}");
        // The next gateway comes to the same. A hidden client it can only take for this gateway.
        let first = one.x_forwarded_for.split(", ").map(str::to_owned).collect::<Vec<_>>();
        if first.len() <= 16 && !first.iter().any(|it| it.starts_with('_') || it.to_lowercase().starts_with("unknown"))
        {
            let fields: [&[&[u8]]; 4] = [
                &[one.x_forwarded_for.as_bytes()],
                &[one.proto.as_str().as_bytes()],
                &[one.host.unwrap().as_bytes()],
                &[one.forwarded.as_deref().unwrap_or_default().as_bytes()],
            ];
            tell("10.0.0.2", &fields, standard, |two| {
                assert_eq!((two.client, two.proto, two.host), (one.client, one.proto, one.host), "{one:?} {two:?}");
            });
        }
    });

    // A stranger behind a trusted proxy, which appends the address: as a line of its own, or to the last line.
    let client = |fields: [&[&[u8]]; 4]| tell("10.0.0.1", &fields, standard, |told| told.client.to_string());
    let mut appended = x.pop().unwrap_or_default().to_vec();
    appended.extend_from_slice(b", 198.51.100.1");
    x.push(&appended);
    assert_eq!(client([&x, &proto, &host, &forwarded]), "198.51.100.1");
    x.push(b"198.51.100.2");
    assert_eq!(client([&x, &proto, &host, &forwarded]), "198.51.100.2");
    let mut appended = forwarded.pop().unwrap_or_default().to_vec();
    appended.extend_from_slice(b", for=\"[2001:db8::7]:1\";x=\"a,\\\"b, for=10.0.0.9\"");
    forwarded.push(&appended);
    assert_eq!(client([&[], &proto, &host, &forwarded]), "2001:db8::7");
}

/// Asks about a request from `peer`; `10.0.0.0/8` is trusted.
fn tell<T>(peer: &str, fields: &[&[&[u8]]; 4], standard: bool, look: impl FnOnce(&Forwarding<'_>) -> T) -> T {
    let trusted = |address: IpAddr| matches!(address, IpAddr::V4(it) if it.octets()[0] == 10);
    let peer = Peer::new(peer.parse().unwrap(), trusted);
    let own = Own { proto: Proto::Http, host: Some("own.example:8080") };
    let received = Received {
        x_forwarded_for: fields[0],
        x_forwarded_proto: fields[1],
        x_forwarded_host: fields[2],
        forwarded: fields[3],
    };
    look(&Forwarding::new(&peer, own, &received, trusted, standard))
}
