//! Limits: too large, too slow, too many.

use std::time::{Duration, Instant};

use super::raw::message;
use crate::case::{Case, Failure, Group, Outcome, Severity::*, want};
use crate::client::{Client, ask};
use crate::lane::Lane;
use crate::origin::{Then, answer};
use crate::peer::Need;
use crate::stream::Broken;

const SECOND: Duration = Duration::from_secs(1);
const GET: &str = "GET /c HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Another client, from another address, is served meanwhile, and soon.
pub(super) fn others_are_served(lane: &Lane) -> Outcome {
    let began = Instant::now();
    let mut client = lane.client_from("127.0.0.77")?;
    client.send(GET);
    let response = client.response();
    want!(
        response.ok() && began.elapsed() < SECOND,
        "200 for others within a second",
        "{response} after {:?}",
        began.elapsed()
    );
    Ok(())
}

fn sizes(group: &mut Group) {
    let heads: Vec<(&str, Vec<u8>, &[u16], Option<Need>)> = vec![
        ("one-field-of-20k", message("GET /c HTTP/1.1", format!("X: {}", "y".repeat(20 << 10)), ""), &[431, 400], None),
        ("one-field-of-1m", message("GET /c HTTP/1.1", format!("X: {}", "y".repeat(1 << 20)), ""), &[431, 400], None),
        (
            "fields-of-40k-together",
            message("GET /c HTTP/1.1", vec![format!("X: {}", "y".repeat(1000)); 40].join("\r\n"), ""),
            &[431, 400],
            None,
        ),
        (
            "200-fields",
            message("GET /c HTTP/1.1", vec!["X: y"; 200].join("\r\n"), ""),
            &[431, 400],
            Some(Need::FieldCount),
        ),
        ("10000-fields", message("GET /c HTTP/1.1", vec!["X: y"; 10_000].join("\r\n"), ""), &[431, 400], None),
        ("name-of-20k", message("GET /c HTTP/1.1", format!("{}: y", "x".repeat(20 << 10)), ""), &[431, 400], None),
        (
            "method-of-20k",
            format!("{} /c HTTP/1.1\r\nHost: a.test\r\n\r\n", "M".repeat(20 << 10)).into(),
            &[431, 400, 414, 501, 405],
            None,
        ),
        (
            "target-of-10k",
            format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "c".repeat(10 << 10)).into(),
            &[414, 431, 400],
            Some(Need::TargetSize),
        ),
        (
            "target-of-100k",
            format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "c".repeat(100 << 10)).into(),
            &[414, 431, 400],
            None,
        ),
        (
            "query-of-100k",
            format!("GET /c?{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "c".repeat(100 << 10)).into(),
            &[414, 431, 400],
            None,
        ),
        ("host-of-20k", format!("GET /c HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(20 << 10)).into(), &[431, 400], None),
        (
            "version-of-20k",
            format!("GET /c HTTP/1.1{}\r\nHost: a.test\r\n\r\n", "1".repeat(20 << 10)).into(),
            &[431, 400, 414, 505],
            None,
        ),
    ];
    for (name, bytes, codes, need) in heads {
        let case: &mut Case =
            group.add(Correctness, "RFC 9110 5.4; RFC 6585 5; RFC 9112 3", format!("head-with-{name}"), move |lane| {
                let mut client = lane.client()?;
                client.send(&bytes);
                let response = client.response();
                // With much of it unread, the reset may overtake the answer.
                let refused = codes.contains(&response.status)
                    || matches!(response.broken, Some(Broken::Ended(_))) && response.status == 0;
                want!(refused, format!("one of {codes:?}"), "{response}");
                want!(client.end().is_some(), "a closed connection", "{response}, and it stays open");
                want!(lane.main().count() == 0, "nothing at the endpoint", "a request");
                Ok(())
            });
        case.needs = need;
    }
    group.add(Courtesy, "RFC 6585 5", "head-too-large-is-told", |lane| {
        let response = ask(lane.plain(), message("GET /c HTTP/1.1", format!("X: {}", "y".repeat(20 << 10)), ""))?;
        want!(matches!(response.status, 431 | 400), "431", "{response}");
        Ok(())
    });
    group.add(Safety, "RFC 9110 5.4", "endless-head", |lane| {
        let before = lane.memory();
        let mut client = lane.client()?;
        client.send("GET /c HTTP/1.1\r\nHost: a.test\r\nX: ");
        let (piece, mut sent) = (vec![b'y'; 64 << 10], 0);
        while sent < 64 && client.send(&piece) {
            sent += 1;
        }
        want!(sent < 64, "an end to it", "{sent} times 64 KiB taken");
        let grown = lane.memory().saturating_sub(before) >> 20;
        want!(grown < 8, "bounded memory", "{grown} MiB");
        Ok(())
    });
    for (name, version_2, chunked) in
        [("length", false, false), ("chunked", false, true), ("h2", true, false), ("h2-without-length", true, true)]
    {
        group.add(Correctness, "RFC 9110 15.5.14", format!("body-too-large-{name}"), move |lane| {
            let size = 2 << 20;
            let (status, seen) = if version_2 {
                let mut h2 = crate::h2client::open(lane)?;
                let length = size.to_string();
                let more: &[(&str, &str)] = if chunked { &[] } else { &[("content-length", &length)] };
                h2.headers(1, &crate::h2client::head_with("POST", "/small", more), false);
                h2.upload(1, &vec![b'x'; size], true);
                let message = h2.answer(1);
                (message.status(), message.to_string())
            } else {
                let mut client = lane.client()?;
                let line =
                    if chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {size}") };
                client.send(message("POST /small HTTP/1.1", line, ""));
                for _ in 0..size / 65_536 {
                    let piece = vec![b'x'; 65_536];
                    let piece = if chunked { [b"10000\r\n", piece.as_slice(), b"\r\n"].concat() } else { piece };
                    if !client.send(piece) {
                        break;
                    }
                }
                client.send(if chunked { "0\r\n\r\n" } else { "" });
                let response = client.response();
                (response.status, response.to_string())
            };
            want!(status == 413, "413", "{seen}");
            let whole = lane.main().requests().iter().any(|it| it.whole);
            want!(!whole, "no whole request at the endpoint", "one");
            Ok(())
        });
    }
    group.add(Correctness, "RFC 9110 15.5.14", "body-as-large-as-allowed", |lane| {
        let size = 1 << 20;
        let response =
            ask(lane.plain(), message("POST /small HTTP/1.1", format!("Content-Length: {size}"), vec![b'x'; size]))?;
        want!(response.ok() && lane.main().last().body.len() == size, "200", "{response}");
        Ok(())
    });
}

/// How long until the gateway ends this connection; `None` if it does not within six seconds.
fn shed_after(client: &mut Client, mut keep_busy: impl FnMut(&mut Client)) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < SECOND * 6 {
        match client.reader.fill(Instant::now() + Duration::from_millis(100)) {
            Ok(()) | Err(Broken::TooLate) => keep_busy(client),
            Err(_) => return Some(began.elapsed()),
        }
    }
    None
}

fn slowness(group: &mut Group) {
    for (name, start, drip) in [
        ("nothing", "", ""),
        ("half-a-line", "GET /c HT", ""),
        ("half-a-head", "GET /c HTTP/1.1\r\nHost: a.test\r\n", ""),
        ("dripping-fields", "GET /c HTTP/1.1\r\nHost: a.test\r\n", "X: y\r\n"),
        ("dripping-bytes", "GET /c HTTP/1.1\r\nHost: a.test\r\nX: ", "y"),
        ("dripping-empty-lines", "", "\r\n"),
    ] {
        let severity = if name == "nothing" { Correctness } else { Safety };
        group.add(severity, "slowloris (2009); RFC 9110 15.5.9", format!("slow-head-{name}"), move |lane| {
            let mut client = lane.client()?;
            client.send(start);
            let after = shed_after(&mut client, |it| drop(it.send(drip)));
            let got = client.reader.buffer.clone();
            // One second is set; HAProxy and nginx count in seconds.
            want!(after.is_some_and(|it| it < SECOND * 4), "shed within three seconds of the deadline", "{after:?}");
            let fine = got.is_empty() || ["408", "400", "504"].iter().any(|it| got.get(9..12) == Some(it.as_bytes()));
            want!(fine, "408, or an end", "{}", crate::bytes::show(&got));
            want!(lane.main().count() == 0, "nothing at the endpoint", "a request");
            Ok(())
        });
    }
    for (name, head, drip) in [
        ("length-stops", "Content-Length: 100", ""),
        ("chunked-stops", "Transfer-Encoding: chunked", ""),
        ("chunk-stops", "Transfer-Encoding: chunked\r\nX: in-chunk", ""),
    ] {
        group.add(Safety, "RFC 9110 15.5.9", format!("slow-body-{name}"), move |lane| {
            let mut client = lane.client()?;
            client.send(message("POST /c HTTP/1.1", head, if name == "chunk-stops" { "64\r\nhello" } else { "" }));
            let after = shed_after(&mut client, |it| drop(it.send(drip)));
            want!(
                after.is_some_and(|it| it < Duration::from_millis(5500)),
                "shed after two seconds or so",
                "{after:?}"
            );
            let whole = lane.main().requests().iter().any(|it| it.whole);
            want!(!whole, "no whole request at the endpoint", "one");
            Ok(())
        });
    }
    group.add(Correctness, "RFC 9110 15.5.9", "slow-but-steady-body-is-served", |lane| {
        let mut client = lane.client()?;
        client.send("POST /c HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3072\r\n\r\n");
        for _ in 0..12 {
            client.send([b'x'; 256]);
            std::thread::sleep(Duration::from_millis(250));
        }
        let response = client.response();
        want!(response.ok(), "200 to a body of three seconds", "{response}");
        Ok(())
    });
    group.add(Safety, "slow read (2012)", "slow-reader-is-shed", |lane| {
        lane.main().answers(|it| {
            it.send("HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n");
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..256 {
                if !it.send(&piece) {
                    break;
                }
            }
            Then::Reset
        });
        let mut client = lane.client()?;
        client.send(GET);
        // Reads nothing at all: both the endpoint and the gateway's memory are held until somebody ends it.
        let ended = lane.main().until_closed(SECOND * 7);
        want!(ended, "ended after two seconds or so", "still there after seven");
        drop(client);
        Ok(())
    });
    group.add(Correctness, "RFC 9112 9.8", "idle-connection-is-closed", |lane| {
        let mut client = lane.client()?;
        client.send(GET);
        want!(client.response().ok(), "200", "something else");
        let after = shed_after(&mut client, |_| {});
        want!(after.is_some_and(|it| it > SECOND && it < SECOND * 4), "closed after two seconds", "{after:?}");
        Ok(())
    });
    group
        .add(Safety, "slowloris (2009)", "300-slow-heads-while-others-are-served", |lane| {
            let before = lane.memory();
            let mut slow = Vec::new();
            for nth in 0..300 {
                let mut client = lane.client_from(if nth % 2 == 0 { "127.0.0.10" } else { "127.0.0.11" })?;
                client.send("GET /c HTTP/1.1\r\nHost: a.test\r\nX: ");
                slow.push(client);
            }
            for _ in 0..10 {
                others_are_served(lane)?;
            }
            let grown = lane.memory().saturating_sub(before) >> 20;
            want!(grown < 32, "a hundred kilobytes for each at most", "{grown} MiB for 300");
            let until = Instant::now() + SECOND * 4;
            for client in &mut slow {
                let left = until.saturating_duration_since(Instant::now());
                want!(client.end_within(left).is_some(), "all shed after a second or so", "one is still there");
            }
            others_are_served(lane)
        })
        .heavy();
}

fn counts(group: &mut Group) {
    fn open(lane: &Lane, count: usize, from: &[&str]) -> Result<Vec<Client>, Failure> {
        // Each says something, so that none counts as idle before its time.
        let connect = |nth: usize| -> Result<Client, Failure> {
            let mut client = lane.client_from(from[nth % from.len()])?;
            client.send("GET /c HTTP/1.1\r\n");
            Ok(client)
        };
        (0..count).map(connect).collect()
    }
    fn refused(clients: &mut [Client]) -> usize {
        clients.iter_mut().filter_map(|it| it.end_within(Duration::from_millis(1))).count()
    }
    group
        .add(Safety, "RFC 9110 15.6.4", "connections-of-one-client", |lane| {
            let mut many = open(lane, 450, &["127.0.0.20"])?;
            std::thread::sleep(Duration::from_millis(150));
            let away = refused(&mut many);
            others_are_served(lane)?;
            want!((40..=60).contains(&away), "50 of 450 refused", "{away}");
            drop(many);
            std::thread::sleep(Duration::from_millis(100));
            let mut again = lane.client_from("127.0.0.20")?;
            again.send(GET);
            let response = again.response();
            want!(response.ok(), "200 when they are gone", "{response}");
            Ok(())
        })
        .needs(Need::ClientConnections)
        .heavy();
    group
        .add(Safety, "RFC 9110 15.6.4", "connections-of-a-listener", |lane| {
            let mut many = open(lane, 700, &["127.0.0.20", "127.0.0.21"])?;
            std::thread::sleep(Duration::from_millis(150));
            // Turned away, or not taken from the queue: then they get no answer.
            let mut answered = 0;
            for client in &mut many {
                client.send("Host: a.test\r\nConnection: close\r\n\r\n");
            }
            for client in &mut many {
                client.patience = Duration::from_millis(20);
                answered += usize::from(client.response().ok());
            }
            want!(answered <= 610, "no more than 600 at a time", "{answered} answered");
            want!(answered >= 500, "those within the limit served", "{answered}");
            drop(many);
            std::thread::sleep(Duration::from_millis(200));
            others_are_served(lane)
        })
        .needs(Need::ListenerConnections)
        .heavy();
    group.add(Correctness, "RFC 9112 9.4", "many-short-connections", |lane| {
        for nth in 0..200 {
            let response = ask(lane.plain(), GET)?;
            want!(response.ok(), "200 each time", "{response} as number {nth}");
        }
        Ok(())
    });
    group
        .add(Safety, "RFC 9112 9.3.2", "flood-of-pipelined-requests", |lane| {
            lane.main().says(answer(200, &"x".repeat(1000)), Then::Keep);
            let before = lane.memory();
            let mut client = lane.client()?;
            let (piece, mut sent, began) = (GET.repeat(2000), 0, Instant::now());
            while began.elapsed() < SECOND && sent < 400 && client.send(&piece) {
                sent += 1;
            }
            others_are_served(lane)?;
            let grown = lane.memory().saturating_sub(before) >> 20;
            want!(grown < 16, "bounded memory", "{grown} MiB");
            Ok(())
        })
        .heavy();
}

pub(super) fn fill(group: &mut Group) {
    sizes(group);
    slowness(group);
    counts(group);
}
