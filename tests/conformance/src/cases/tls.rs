//! TLS, towards clients and towards endpoints.

use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};

use crate::case::{Group, Outcome, Severity::*, want};
use crate::certificates::Identity;
use crate::client::{Client, ask};
use crate::h2client::{head, over};
use crate::lane::Lane;
use crate::stream::{Broken, Reader, Stream, connect};

const GET: &str = "GET /c HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

fn get(lane: &Lane, client: Result<Client, String>, expected: u16) -> Outcome {
    let mut client = client?;
    client.send(GET);
    let response = client.response();
    want!(response.status == expected && response.whole(), expected, "{response}");
    let proto = lane.main().last().list("x-forwarded-proto");
    want!(proto == "https", "X-Forwarded-Proto: https", "{proto}");
    Ok(())
}

/// A ClientHello of that version and nothing later, written by hand: rustls knows none so old.
fn old_hello(version: u8) -> Vec<u8> {
    let mut hello = vec![3, version];
    hello.extend([7; 32]);
    // No session; a few suites of that time, with elliptic curves and with RSA alone.
    hello.extend([0, 0, 10, 0xc0, 0x13, 0xc0, 0x14, 0x00, 0x2f, 0x00, 0x35, 0xc0, 0x09, 1, 0]);
    let name = b"a.test";
    let mut extensions = vec![0, 0, 0, name.len() as u8 + 5, 0, name.len() as u8 + 3, 0, 0, name.len() as u8];
    extensions.extend(name);
    extensions.extend([0, 10, 0, 6, 0, 4, 0, 23, 0, 24, 0, 11, 0, 2, 1, 0]);
    hello.extend((extensions.len() as u16).to_be_bytes());
    hello.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend((hello.len() as u16).to_be_bytes());
    handshake.extend(hello);
    let mut record = vec![22, 3, 1];
    record.extend((handshake.len() as u16).to_be_bytes());
    record.extend(handshake);
    record
}

pub(super) fn fill(group: &mut Group) {
    for (name, version) in [("1.2", &TLS12), ("1.3", &TLS13)] {
        group.add(Correctness, "RFC 8446; RFC 5246", format!("version-{name}"), move |lane| {
            let config = lane.certificates.client(&[version], &["http/1.1"], Identity::Nobody);
            get(lane, Client::open_tls(lane.tls(), "a.test", config), 200)
        });
    }
    for (name, version) in [("1.0", 1), ("1.1", 2)] {
        group.add(Safety, "RFC 8996", format!("version-{name}-refused"), move |lane| {
            let mut reader = Reader::new(Stream::Plain(connect(lane.tls(), None).map_err(|it| it.to_string())?));
            reader.send(&old_hello(version));
            let until = Instant::now() + Duration::from_secs(3);
            let first = reader.take_some(1, until);
            // An alert (21) or the end; a handshake record (22) would be a ServerHello.
            let refused = matches!(&first, Ok(it) if it[0] == 21) || matches!(first, Err(Broken::Ended(_)));
            want!(refused, "an alert, or the end", "{first:?}");
            Ok(())
        });
    }
    // The client checks the name: the wrong certificate ends the handshake.
    for name in ["a.test", "b.test"] {
        group.add(Correctness, "RFC 6066 3", format!("certificate-for-{name}"), move |lane| {
            let config = lane.certificates.client(&[&TLS13, &TLS12], &["http/1.1"], Identity::Nobody);
            let mut client = Client::open_tls(lane.tls(), name, config)?;
            client.send(GET.replace("a.test", name));
            let response = client.response();
            want!(response.ok(), "200", "{response}");
            Ok(())
        });
    }
    for name in ["c.test", "127.0.0.1"] {
        group.add(Correctness, "RFC 6066 3", format!("no-certificate-for-{name}"), move |lane| {
            let config = lane.certificates.client(&[&TLS13, &TLS12], &["http/1.1"], Identity::Nobody);
            let end = Client::open_tls(lane.tls(), name, config).err();
            // The first certificate, or a refusal, but an answer within the time for a handshake.
            want!(end.as_ref().is_some_and(|it| it.contains("TLS")), "the first certificate, or a refusal", "{end:?}");
            Ok(())
        });
    }
    for (name, offered, expected) in [
        ("h2-first", &["h2", "http/1.1"][..], Some("h2")),
        ("http-1.1-only", &["http/1.1"], Some("http/1.1")),
        ("h2-only", &["h2"], Some("h2")),
        ("none", &[], None),
    ] {
        group.add(Correctness, "RFC 7301; RFC 9113 3.2", format!("alpn-{name}"), move |lane| {
            let config = lane.certificates.client(&[&TLS13, &TLS12], offered, Identity::Nobody);
            let client = Client::open_tls(lane.tls(), "a.test", config)?;
            let Stream::Client(tls) = &client.reader.stream else { unreachable!("a TLS client has a TLS stream") };
            let agreed = tls.conn.alpn_protocol().map(|it| String::from_utf8_lossy(it).into_owned());
            want!(agreed.as_deref() == expected, format!("{expected:?}"), "{agreed:?}");
            if expected != Some("h2") {
                return get(lane, Ok(client), 200);
            }
            let mut h2 = over(client)?;
            let mut fields = head("GET", "/c");
            fields[1].1 = "https";
            h2.headers(1, &fields, true);
            let message = h2.answer(1);
            want!(message.ok(), "200 over HTTP/2", "{message}");
            want!(
                lane.main().last().list("x-forwarded-proto") == "https",
                "X-Forwarded-Proto: https",
                "{}",
                lane.main().last().list("x-forwarded-proto")
            );
            Ok(())
        });
    }
    group.add(Courtesy, "RFC 7301 3.2", "alpn-unknown-only", |lane| {
        let config = lane.certificates.client(&[&TLS13], &["foo"], Identity::Nobody);
        let outcome = Client::open_tls(lane.tls(), "a.test", config).map(|_| ());
        want!(outcome.is_err(), "no_application_protocol", "a handshake");
        Ok(())
    });
    for (name, identity, accepted) in [
        ("required-right", Identity::Client, true),
        ("required-none", Identity::Nobody, false),
        ("required-stranger", Identity::Stranger, false),
    ] {
        for (protocol, version) in [("1.2", &TLS12), ("1.3", &TLS13)] {
            let severity = if accepted { Correctness } else { Safety };
            group.add(severity, "RFC 8446 4.4.2", format!("client-certificate-{name}-{protocol}"), move |lane| {
                let config = lane.certificates.client(&[version], &["http/1.1"], identity);
                let mut client = match Client::open_tls(lane.mtls(), "a.test", config) {
                    Ok(client) => client,
                    Err(error) if accepted => return Err(error.into()),
                    Err(_) => return Ok(()),
                };
                client.send(GET);
                let response = client.response();
                want!(response.ok() == accepted, if accepted { "200" } else { "refused" }, "{response}");
                want!(accepted || lane.main().count() == 0, "nothing at the endpoint", "a request");
                Ok(())
            });
        }
    }
    group.add(Safety, "RFC 8446 6.1", "silent-client-is-shed", |lane| {
        let mut reader = Reader::new(Stream::Plain(connect(lane.tls(), None).map_err(|it| it.to_string())?));
        reader.send(&[22, 3, 1]);
        let until = Instant::now() + Duration::from_millis(4500);
        let end = loop {
            match reader.fill(until) {
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        want!(matches!(end, Broken::Ended(_)), "the end, about a second later", "{end:?}");
        Ok(())
    });
    group.add(Correctness, "RFC 8446 6", "plain-http-on-the-tls-port", |lane| {
        let mut client = Client::open(lane.tls())?;
        client.send(GET);
        let (bytes, end) = client.everything();
        want!(
            end.is_some() && lane.main().count() == 0,
            "an error and the end",
            "{end:?}, {}",
            crate::bytes::show(&bytes)
        );
        Ok(())
    });
    group.add(Correctness, "RFC 9110 4.3.4", "endpoint-with-tls", |lane| {
        let response = ask(lane.plain(), "GET /tls HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        want!(response.ok() && lane.origins.tls.count() == 1, "200", "{response}");
        Ok(())
    });
    group.add(Safety, "RFC 9110 4.3.4", "endpoint-of-a-stranger", |lane| {
        let response =
            ask(lane.plain(), "GET /tls-wrong HTTP/1.1\r\nHost: a.test\r\nAuthorization: Basic eA==\r\n\r\n")?;
        want!(response.status >= 500, "502", "{response}");
        let seen = lane.origins.tls_wrong.count();
        want!(seen == 0, "nothing told to an endpoint that cannot prove itself", "{seen} requests");
        Ok(())
    });
}
