//! HTTP/2 to endpoints, gRPC, and WebSocket over HTTP/2.

use std::time::{Duration, Instant};

use crate::case::{Group, Severity::*, want};
use crate::h2client::{head_with, open};
use crate::lane::Lane;
use crate::origin::{Exchange, Then, answer};
use crate::peer::Need;

const SECOND: Duration = Duration::from_secs(1);

/// Switches, and sends back whatever comes.
fn websocket(it: &mut Exchange<'_>) -> Then {
    // Over HTTP/2 there is no key; the gateway makes one for HTTP/1.1, and checks the answer to it.
    let accept = super::accept::of(it.request.field("sec-websocket-key").unwrap_or_default());
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    it.send(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n"));
    let until = Instant::now() + SECOND * 6;
    while let Ok(piece) = it.reader.take_some(usize::MAX, until) {
        it.send(piece);
    }
    Then::Close
}

/// WebSocket over HTTP/2.
fn extended_connect(group: &mut Group) {
    const FIELDS: &[(&str, &str)] = &[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/ws"),
        (":authority", "a.test"),
        ("sec-websocket-version", "13"),
    ];
    group
        .add(Correctness, "RFC 8441 3", "websocket-announced", |lane| {
            let h2 = open(lane)?;
            want!(h2.settings.get(&8) == Some(&1), "SETTINGS_ENABLE_CONNECT_PROTOCOL", "{:?}", h2.settings);
            Ok(())
        })
        .needs(Need::ExtendedConnect);
    group
        .add(Correctness, "RFC 8441 5", "websocket-both-ways", |lane| {
            lane.main().answers(websocket);
            let mut h2 = open(lane)?;
            h2.headers(1, FIELDS, false);
            let head = h2.answer_until(1, |it| it.status() != 0);
            want!(head.status() == 200 && !head.ended, "200", "{head}");
            h2.data(1, "hello", false);
            let echo = h2.answer_until(1, |it| it.body == b"hello");
            want!(echo.body == b"hello", "hello", "{echo}");
            let request = lane.main().last();
            want!(
                request.method == "GET" && request.list("upgrade").eq_ignore_ascii_case("websocket"),
                "an upgrade at the endpoint",
                "{}",
                request.method
            );
            Ok(())
        })
        .needs(Need::ExtendedConnect);
    group
        .add(Courtesy, "RFC 8441 5", "websocket-end", |lane| {
            lane.main().answers(websocket);
            let mut h2 = open(lane)?;
            h2.headers(1, FIELDS, false);
            let head = h2.answer_until(1, |it| it.status() != 0);
            want!(head.status() == 200, "200", "{head}");
            h2.data(1, "", true);
            want!(lane.main().until_closed(SECOND * 3), "the endpoint's side closed", "it stays open");
            Ok(())
        })
        .needs(Need::ExtendedConnect);
    group
        .add(Correctness, "RFC 8441 5", "websocket-refused", |lane| {
            lane.main().says(answer(403, "no"), Then::Keep);
            let mut h2 = open(lane)?;
            h2.headers(1, FIELDS, false);
            let message = h2.answer_until(1, |it| it.status() != 0);
            want!(message.status() == 403, "403", "{message}");
            Ok(())
        })
        .needs(Need::ExtendedConnect);
    for (name, protocol) in [("connect", None), ("connect-unknown-protocol", Some("foo"))] {
        group.add(Safety, "RFC 9110 9.3.6; RFC 8441 4", format!("{name}-refused"), move |lane| {
            let mut h2 = open(lane)?;
            match protocol {
                None => h2.headers(1, &[(":method", "CONNECT"), (":authority", "a.test:443")], false),
                Some(it) => h2.headers(1, &head_with("CONNECT", "/c", &[(":protocol", it)]), false),
            };
            let message = h2.answer_until(1, |it| it.status() != 0);
            want!(message.refused(), "refused", "{message}");
            Ok(())
        });
    }
}

/// Endpoints that speak HTTP/2, and gRPC.
fn endpoints(group: &mut Group) {
    fn grpc(lane: &Lane) {
        lane.origins.h2.answers(|h2, stream| {
            h2.answer(stream);
            h2.headers(stream, &[(":status", "200"), ("content-type", "application/grpc")], false);
            h2.data(stream, b"\0\0\0\0\x02ok", false);
            h2.headers(stream, &[("grpc-status", "0"), ("grpc-message", "fine")], true);
            Then::Keep
        });
    }
    const CALL: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "1S")];
    group.add(Correctness, "RFC 9113 3.3", "endpoint-get-from-1.1", |lane| {
        let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\n\r\n")?;
        let request = lane.origins.h2.last();
        want!(response.ok() && response.body == b"ok", "200", "{response}, {:?}", lane.origins.h2.strangers());
        want!(
            request.field(":path") == Some("/h2c") && request.field("x-a") == Some("b"),
            "the request at the endpoint",
            "{:?}",
            request.field(":path")
        );
        want!(
            request.field(":authority").or(request.field("host")) == Some("a.test"),
            "its authority",
            "{:?}",
            request.field(":authority")
        );
        Ok(())
    });
    group.add(Correctness, "RFC 9113 3.3", "endpoint-post-from-1.1", |lane| {
        let response = crate::client::ask(
            lane.plain(),
            "POST /h2c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )?;
        want!(response.ok() && lane.origins.h2.last().body == b"hello", "200, and hello at the endpoint", "{response}");
        want!(
            lane.origins.h2.last().field("transfer-encoding").is_none(),
            "no transfer-encoding in HTTP/2",
            "there is one"
        );
        Ok(())
    });
    group.add(Correctness, "gRPC over HTTP/2", "grpc-unary", |lane| {
        grpc(lane);
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("POST", "/grpc/x.Y/Z", CALL), false);
        h2.data(1, b"\0\0\0\0\x02hi", true);
        let message = h2.answer(1);
        let request = lane.origins.h2.last();
        want!(message.ok() && message.body == b"\0\0\0\0\x02ok", "200", "{message}");
        want!(message.trailer("grpc-status") == Some("0"), "grpc-status in the trailers", "{:?}", message.trailers);
        want!(request.field("te") == Some("trailers"), "te: trailers at the endpoint", "{:?}", request.field("te"));
        want!(request.body == b"\0\0\0\0\x02hi", "the message at the endpoint", "{} bytes", request.body.len());
        Ok(())
    });
    group.add(Correctness, "gRPC over HTTP/2", "grpc-trailers-only", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.answer(stream);
            let fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")];
            h2.headers(stream, &fields, true);
            Then::Keep
        });
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("POST", "/grpc/x.Y/Z", CALL), false);
        h2.data(1, b"\0\0\0\0\x02hi", true);
        let message = h2.answer(1);
        let status = message.trailer("grpc-status").or(message.field("grpc-status"));
        want!(message.ok() && status == Some("5"), "grpc-status 5", "{message}");
        Ok(())
    });
    group.add(Correctness, "gRPC over HTTP/2", "grpc-both-ways-at-once", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.headers(stream, &[(":status", "200"), ("content-type", "application/grpc")], false);
            for nth in 1..=3 {
                let heard = h2.answer_until(stream, |it| it.body.len() >= nth * 7);
                if heard.body.len() < nth * 7 {
                    return Then::Reset;
                }
                h2.data(stream, b"\0\0\0\0\x02ok", false);
            }
            h2.answer(stream);
            h2.headers(stream, &[("grpc-status", "0")], true);
            Then::Keep
        });
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("POST", "/grpc/x.Y/Z", CALL), false);
        for nth in 1..=3 {
            h2.data(1, b"\0\0\0\0\x02hi", false);
            let heard = h2.answer_until(1, |it| it.body.len() >= nth * 7);
            want!(heard.body.len() == nth * 7, format!("answer {nth} before the next is asked"), "{heard}");
        }
        h2.data(1, "", true);
        let message = h2.answer(1);
        want!(message.ok() && message.trailer("grpc-status") == Some("0"), "grpc-status 0", "{message}");
        Ok(())
    });
    group.add(Safety, "RFC 9113 8.1.1", "endpoint-resets-in-mid-body", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.headers(stream, &[(":status", "200"), ("content-type", "application/grpc")], false);
            h2.data(stream, "half", false);
            h2.frame(crate::h2::RST_STREAM, 0, stream, 2u32.to_be_bytes());
            Then::Keep
        });
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("POST", "/grpc/x.Y/Z", CALL), true);
        let message = h2.answer(1);
        let told = message.reset.is_some() || message.trailer("grpc-status").is_some_and(|it| it != "0");
        want!(
            told || message.status() >= 500 || message.field("grpc-status").is_some(),
            "a reset, or an error",
            "{message}"
        );
        let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        want!(!response.ok(), "a response that visibly breaks off for 1.1 too", "{response}");
        Ok(())
    });
    group.add(Safety, "RFC 9113 8.1.1", "endpoint-goes-away-in-mid-body", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.headers(stream, &[(":status", "200"), ("content-length", "100")], false);
            h2.data(stream, "half", false);
            std::thread::sleep(Duration::from_millis(50));
            Then::Reset
        });
        let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        want!(!response.ok(), "a response that visibly breaks off", "{response}");
        Ok(())
    });
    group.add(Safety, "RFC 9113 8.1.1", "endpoint-says-less-than-its-length", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.answer(stream);
            h2.headers(stream, &[(":status", "200"), ("content-length", "100")], false);
            h2.data(stream, "half", true);
            Then::Keep
        });
        let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        want!(!response.ok(), "a response that visibly breaks off", "{response}");
        Ok(())
    });
    group.add(Correctness, "RFC 9113 6.8", "endpoint-goaway-between-requests", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            crate::h2origin::usual(h2, stream);
            h2.frame(crate::h2::GOAWAY, 0, 0, [stream.to_be_bytes(), [0; 4]].concat());
            Then::Keep
        });
        for _ in 0..4 {
            let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
            want!(response.ok(), "200 each time", "{response}");
        }
        want!(lane.origins.h2.connections() >= 2, "new connections after GOAWAY", "{}", lane.origins.h2.connections());
        Ok(())
    });
    group.add(Safety, "RFC 9113 8.2.1", "endpoint-sends-line-ends-in-a-value", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.answer(stream);
            h2.headers(stream, &[(":status", "200"), ("x", "a\r\nset-cookie: b=c\r\nx-y: z")], true);
            Then::Keep
        });
        let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        want!(
            !response.has("set-cookie") && !response.has("x-y"),
            "no field from within a value",
            "{:?}",
            response.fields
        );
        Ok(())
    });
}

pub(super) fn fill(group: &mut Group) {
    extended_connect(group);
    let before = group.cases.len();
    endpoints(group);
    for case in &mut group.cases[before..] {
        case.needs = Some(Need::H2Endpoint);
    }
}
