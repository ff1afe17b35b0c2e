//! What every filter must bear: requests and responses of every shape, bodies, other uses beside it.

use http::{Method, StatusCode};

use super::passage::{Came, Passage, Sent, pass};
use super::report::{Finding, HINT, advised};
use super::{Checked, Tester, steady};
use crate::cli::rig::Rig;
use crate::message::Fields;
use crate::plugin::host::Show;

/// Makes all checks.
pub(super) fn all(tester: &mut Tester) {
    let kinds = tester.plugin.described.kinds;
    for (what, sent) in requests() {
        tester.check(what, |tester| once(tester, &sent, &ordinary()));
    }
    if kinds.response_filter {
        tester.check("responses of every kind", responses);
    }
    if kinds.request_body_filter {
        tester.check("bodies of requests", |tester| bodies(tester, 0));
    }
    if kinds.response_body_filter {
        tester.check("bodies of responses", |tester| bodies(tester, 1));
    }
    tester.check("two uses at once", two);
    tester.check("memory", memory);
}

fn ordinary() -> Came {
    let mut came = Came::new(StatusCode::OK);
    came.head.fields.append("content-type", b"text/html; charset=utf-8");
    came.head.fields.append("cache-control", b"max-age=60");
    came.body.push(b"<p>Hello</p>".to_vec());
    came
}

/// Requests that are out of the ordinary, each in its way.
fn requests() -> Vec<(&'static str, Sent)> {
    let mut bare = Sent::new(Method::GET, "/");
    bare.head.fields = Fields::default();
    let mut many = Sent::new(Method::GET, "/a?b=c");
    for n in 0..100 {
        many.head.fields.append(&*format!("x-field-{n}"), format!("value {n}").as_bytes());
    }
    let mut repeated = Sent::new(Method::GET, "/a");
    for value in ["a=1; b=2", "", "c=3"] {
        repeated.head.fields.append("cookie", value.as_bytes());
        repeated.head.fields.append("X-Forwarded-For", value.as_bytes());
    }
    let long = Sent::new(Method::GET, &format!("/{}?{}", "a/".repeat(2000), "b=c&".repeat(1000)));
    let mut odd = Sent::new(Method::GET, "/%00%ff/..;/%2e%2e//?&&=&a=%zz&a=b=c?d");
    for (name, value) in
        [("x-latin", &b"caf\xe9"[..]), ("x-tab", b"a\tb"), ("X-ODD!#$", b"\"\\"), ("authorization", b"Basic")]
    {
        odd.head.fields.append(name, value);
    }
    let mut six = Sent::new(Method::GET, "/a");
    six.client = std::net::Ipv6Addr::LOCALHOST.into();
    let mut preflight = Sent::new(Method::OPTIONS, "/a");
    preflight.head.fields.append("origin", b"https://shop.example");
    preflight.head.fields.append("access-control-request-method", b"PUT");
    vec![
        ("a request without fields", bare),
        ("a request with 100 fields", many),
        ("a request with fields that come again", repeated),
        ("a request with a long path", long),
        ("a request with odd bytes", odd),
        ("a request over IPv6", six),
        ("a request with OPTIONS", preflight),
    ]
}

/// Takes one request through an instance of its own.
fn once(tester: &Tester, sent: &Sent, came: &Came) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let passage = pass(&mut rig, &binding, sent, came).map_err(|failure| advised(&failure))?;
    Ok(Finding::Fine(went(&passage)))
}

fn went(passage: &Passage) -> String {
    match (passage.answered, &passage.on) {
        (false, _) => "passed on".to_owned(),
        (true, None) => format!("answered with {}", passage.back.0.status.as_u16()),
        (true, Some(_)) => format!("passed on, the response replaced by {}", passage.back.0.status.as_u16()),
    }
}

fn responses(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let (mut count, mut own) = (0, 0);
    for status in [200, 204, 206, 301, 304, 401, 404, 429, 500, 503] {
        for shape in ["bare", "many", "odd"] {
            let mut came = Came::new(StatusCode::from_u16(status).map_err(|error| error.to_string())?);
            match shape {
                "many" => (0..100).for_each(|n| came.head.fields.append(&*format!("x-{n}"), b"value")),
                "odd" => came.head.fields.append("set-cookie", b"caf\xe9; Path=/"),
                _ => {}
            }
            came.body.push(b"text".to_vec());
            let sent = Sent::new(Method::GET, "/a");
            let told = |failure| format!("a {shape} response with {status}: {}", advised(&failure));
            own += usize::from(pass(&mut rig, &binding, &sent, &came).map_err(told)?.answered);
            count += 1;
        }
    }
    Ok(Finding::Fine(format!("{count}, of which the client gets another answer for {own}")))
}

/// Bodies of requests (0) or responses (1).
fn bodies(tester: &Tester, whose: usize) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let all_bytes: Vec<u8> = (0..=255).collect();
    let shapes: [(&str, Vec<Vec<u8>>); 6] = [
        ("of one piece", vec![b"{\"name\": \"value\"}".to_vec()]),
        ("of 50 pieces", (0..50).map(|n| format!("piece {n}\n").into_bytes()).collect()),
        ("of pieces that cut characters", "größer".bytes().map(|byte| vec![byte]).collect()),
        ("of every byte", vec![all_bytes.clone()]),
        ("of 200 KiB", vec![all_bytes.repeat(800)]),
        ("that is not there", Vec::new()),
    ];
    let mut asked = Vec::new();
    for (what, body) in shapes {
        for content_type in ["application/json", "text/plain"] {
            let (mut sent, mut came) = (Sent::new(Method::POST, "/a"), Came::new(StatusCode::OK));
            match whose {
                0 => (sent.body.clone_from(&body), sent.head.fields.append("content-type", content_type.as_bytes())).1,
                _ => (came.body.clone_from(&body), came.head.fields.append("content-type", content_type.as_bytes())).1,
            }
            let told = |failure| format!("a body {what}, {content_type}: {}", advised(&failure));
            asked.extend(pass(&mut rig, &binding, &sent, &came).map_err(told)?.asked[whose]);
        }
    }
    Ok(match asked.first() {
        None => Finding::Note("it asked for none, although it could: is it configured as you want?".into()),
        Some(Show::Pieces) => Finding::Fine(format!("{} seen piece by piece", asked.len())),
        Some(Show::Whole(most)) => Finding::Fine(format!("{} seen as a whole, up to {most} bytes", asked.len())),
    })
}

/// One request to a use.
fn ask(rig: &mut Rig, binding: &std::sync::Arc<crate::plugin::Binding>) -> Result<String, String> {
    let passage = pass(rig, binding, &Sent::new(Method::GET, "/a"), &ordinary());
    passage.map(|it| went(&it)).map_err(|failure| advised(&failure))
}

fn two(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let (first, second) = (tester.bind(&rig), tester.bind(&rig));
    for binding in [&first, &second, &first, &second] {
        ask(&mut rig, binding)?;
    }
    // Its number is free then, and the next use gets it.
    drop(first);
    let third = tester.bind(&rig);
    for binding in [&third, &second] {
        let told =
            |why| format!("{why}\n{HINT}a number that is configured again means the new use, and the others stay");
        ask(&mut rig, binding).map_err(told)?;
    }
    Ok(Finding::Fine("each is served, also after a number is configured again".into()))
}

fn memory(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let binding = tester.bind(&rig);
    let sent: Vec<Sent> = requests().into_iter().map(|(_, sent)| sent).filter(|it| it.head.fields.len() < 50).collect();
    let came = ordinary();
    steady("requests", |n| {
        let sent = &sent[n as usize % sent.len()];
        pass(&mut rig, &binding, sent, &came).map_err(|failure| format!("request {n}: {}", advised(&failure)))?;
        Ok(rig.memory())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{RequestHead, ResponseHead};

    #[test]
    fn requests_are_what_clients_can_send() {
        let all = requests();
        assert!(all.len() > 5);
        for (what, sent) in all {
            assert!(crate::message::Target::sendable(sent.head.target.as_str().into()).is_some(), "{what}");
            for field in sent.head.fields.iter() {
                let fine = crate::message::fields::is_name(field.name) && crate::message::fields::is_value(field.value);
                assert!(fine, "{what}: {:?}", String::from_utf8_lossy(field.name));
            }
        }
    }

    #[test]
    fn how_it_went_is_told() {
        let passage = |answered, on: Option<RequestHead>| Passage {
            on: on.map(|head| (head, Vec::new())),
            back: (ResponseHead::new(StatusCode::FORBIDDEN), Vec::new()),
            answered,
            asked: [None; 2],
        };
        let head = RequestHead::new(Method::GET, "/");
        assert_eq!(went(&passage(false, Some(head.clone()))), "passed on");
        assert_eq!(went(&passage(true, None)), "answered with 403");
        assert_eq!(went(&passage(true, Some(head))), "passed on, the response replaced by 403");
    }
}
