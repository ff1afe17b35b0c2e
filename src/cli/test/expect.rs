//! What an author expects of a message, and how it is told that it is otherwise.

use http::{Method, StatusCode};

use super::passage::Passage;
use crate::message::{Fields, RequestHead, ResponseHead};

/// What is expected of a request that goes on, or of a response.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    /// Of a response; of a request: that the filter answers with this instead.
    pub(super) status: Option<StatusCode>,
    /// Of a request.
    pub(super) method: Option<Method>,
    /// Of a request: path and query.
    pub(super) path: Option<String>,
    /// Names in lower case; of several values of a name, all with `, ` between them.
    pub(super) headers: Vec<(String, String)>,
    /// Names in lower case.
    pub(super) absent: Vec<String>,
    /// As text.
    pub(super) body: Option<String>,
}

impl Expected {
    /// What is otherwise about what went on, or was answered.
    pub(super) fn of_request(&self, passage: &Passage) -> Vec<String> {
        match (&passage.on, self.status) {
            (None, Some(_)) => self.of_response(&passage.back),
            (None, None) => {
                let (head, body) = &passage.back;
                let text = String::from_utf8_lossy(body);
                vec![format!(
                    "expected that it is passed on, but it was answered with {}: {text:?}",
                    head.status.as_u16()
                )]
            }
            (Some(_), Some(status)) => {
                vec![format!("expected an answer with {}, but it was passed on", status.as_u16())]
            }
            (Some((head, body)), None) => self.of_head(head).chain(self.of_rest(&head.fields, body)).collect(),
        }
    }

    /// What is otherwise about a response.
    pub(super) fn of_response(&self, (head, body): &(ResponseHead, Vec<u8>)) -> Vec<String> {
        let status = self.status.filter(|it| *it != head.status);
        let status = status.map(|it| format!("status: expected {}, came {}", it.as_u16(), head.status.as_u16()));
        status.into_iter().chain(self.of_rest(&head.fields, body)).collect()
    }

    fn of_head(&self, head: &RequestHead) -> impl Iterator<Item = String> {
        let method = self.method.as_ref().filter(|it| **it != head.method);
        let method = method.map(|it| format!("method: expected {it}, came {}", head.method));
        let target = head.target.as_str();
        let path = self.path.as_ref().filter(|it| *it != target);
        let path = path.map(|it| format!("path: expected {it:?}, came {target:?}"));
        method.into_iter().chain(path)
    }

    fn of_rest(&self, fields: &Fields, body: &[u8]) -> Vec<String> {
        let value = |name: &str| {
            let all: Vec<_> = fields.all(name).map(String::from_utf8_lossy).collect();
            (!all.is_empty()).then(|| all.join(", "))
        };
        let mut wrong = Vec::new();
        for (name, wanted) in &self.headers {
            match value(name) {
                Some(came) if came == *wanted => {}
                Some(came) => wrong.push(format!("header {name}: expected {wanted:?}, came {came:?}")),
                None => wrong.push(format!("header {name}: expected {wanted:?}, and there is none")),
            }
        }
        for name in &self.absent {
            if let Some(came) = value(name) {
                wrong.push(format!("header {name}: expected none, came {came:?}"));
            }
        }
        let text = String::from_utf8_lossy(body);
        if let Some(wanted) = self.body.as_ref().filter(|it| **it != text) {
            wrong.push(format!("body: expected {:?}, came {:?}", cut(wanted), cut(&text)));
        }
        wrong
    }
}

/// As much of a text as is worth reading.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(200);
    if end == text.len() { text.to_owned() } else { format!("{}… ({} bytes)", &text[..end], text.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(answered: bool) -> Passage {
        let mut head = RequestHead::new(Method::PUT, "/b?c");
        head.fields.append("X-Env", b"prod");
        head.fields.append("x-env", b"test");
        let mut response = ResponseHead::new(StatusCode::FORBIDDEN);
        response.fields.append("server", b"s");
        let on = (!answered).then(|| (head, b"text".to_vec()));
        Passage { on, back: (response, b"no".to_vec()), answered, asked: [None; 2] }
    }

    #[test]
    fn what_is_as_expected_is_not_told() {
        let expected = Expected {
            method: Some(Method::PUT),
            path: Some("/b?c".into()),
            headers: vec![("x-env".into(), "prod, test".into())],
            absent: vec!["cookie".into()],
            body: Some("text".into()),
            ..Expected::default()
        };
        assert_eq!(expected.of_request(&passage(false)), [""; 0]);
        let expected = Expected { status: Some(StatusCode::FORBIDDEN), body: Some("no".into()), ..Expected::default() };
        assert_eq!(expected.of_request(&passage(true)), [""; 0]);
        assert_eq!(expected.of_response(&passage(false).back), [""; 0]);
    }

    #[test]
    fn everything_that_is_otherwise_is_told() {
        let expected = Expected {
            method: Some(Method::GET),
            path: Some("/a".into()),
            headers: vec![("x-env".into(), "prod".into()), ("x-no".into(), "1".into())],
            absent: vec!["x-env".into()],
            body: Some("other".into()),
            ..Expected::default()
        };
        let told = expected.of_request(&passage(false));
        let wanted = [
            "method: expected GET, came PUT",
            "path: expected \"/a\", came \"/b?c\"",
            "header x-env: expected \"prod\", came \"prod, test\"",
            "header x-no: expected \"1\", and there is none",
            "header x-env: expected none, came \"prod, test\"",
            "body: expected \"other\", came \"text\"",
        ];
        assert_eq!(told, wanted);
        let told = expected.of_request(&passage(true));
        assert_eq!(told, ["expected that it is passed on, but it was answered with 403: \"no\""]);
        let answer = Expected { status: Some(StatusCode::OK), ..Expected::default() };
        assert_eq!(answer.of_request(&passage(false)), ["expected an answer with 200, but it was passed on"]);
        assert_eq!(answer.of_response(&passage(false).back), ["status: expected 200, came 403"]);
        assert_eq!(cut(&"ä".repeat(300)), format!("{}… (600 bytes)", "ä".repeat(100)));
    }
}
