//! Admits who has a name and a password (RFC 7617).
//!
//! ```toml
//! filters = [{ plugin = "basic-auth", config = { users = { ada = "sha256:5ad7…:9f86…" }, user_header = "x-user" } }]
//! filters = [{ plugin = "basic-auth", files = { htpasswd = "users.htpasswd" }, config = { realm = "staging" } }]
//! ```
//!
//! Entries are of these forms:
//!
//! | Entry | What it is |
//! |---|---|
//! | `sha256:SALT:HASH` | SHA-256 of the salt's bytes and the password, both in hexadecimal digits |
//! | `{SHA}BASE64` | SHA-1 of the password, from `htpasswd -s`: without a salt, so weak once the file is stolen |
//! | `plain:PASSWORD` | for files that are as secret as the password |
//!
//! An entry with a salt, for a name that no list has, is made by
//! `S=$(openssl rand -hex 16); (printf %s $S | xxd -r -p; printf %s "$PASSWORD") | sha256sum | sed "s/^/sha256:$S:/"`.
//! All three are quick, as a check on every request has to be, and so quick to guess for who has the file: use long random
//! passwords. bcrypt and its like take from 5 ms to a second of a worker's time for each request, and are refused.

mod entry;

use base64ct::{Base64, Encoding};
use entry::Entry;
use moongate_plugin::http::{check_header_name, check_header_value, quoted};
use moongate_plugin::{Config, Reply, Request, RequestFilter, Verdict};
use std::collections::BTreeMap;

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default)]
    users: BTreeMap<String, String>,
    #[serde(default)]
    htpasswd: String,
    #[serde(default = "restricted")]
    realm: String,
    user_header: Option<String>,
    #[serde(default)]
    keep: bool,
}

fn restricted() -> String {
    "restricted".into()
}

struct BasicAuth {
    users: BTreeMap<String, Entry>,
    challenge: String,
    user_header: Option<String>,
    keep: bool,
}

impl TryFrom<Options> for BasicAuth {
    type Error = String;

    fn try_from(options: Options) -> Result<Self, String> {
        let Options { users: table, htpasswd, realm, user_header, keep } = options;
        let mut users = BTreeMap::new();
        let mut add = |name: &str, entry: &str| {
            if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
                return Err("a user's name must not be empty, nor have colons or control characters in it".into());
            }
            match users.insert(name.to_owned(), Entry::new(name, entry)?) {
                None => Ok(()),
                Some(_) => Err(format!("the user `{name}` is there twice")),
            }
        };
        table.iter().try_for_each(|(name, entry)| add(name, entry))?;
        for (line, text) in (1..).zip(htpasswd.lines()) {
            // A password may end with a space.
            let text = text.trim_ascii_start();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (name, entry) = text.split_once(':').ok_or(format!("`htpasswd`, line {line}: no `:` after a name"))?;
            add(name, entry).map_err(|error: String| format!("`htpasswd`, line {line}: {error}"))?;
        }
        if users.is_empty() {
            return Err("nobody could come in: give `users` or `htpasswd`".into());
        }
        check_header_value("realm", &realm)?;
        user_header.iter().try_for_each(|name| check_header_name("user_header", name))?;
        if user_header.as_ref().is_some_and(|name| name.eq_ignore_ascii_case("authorization")) {
            return Err("`user_header` is `authorization`, the header where the password is".into());
        }
        let challenge = format!("Basic realm={}, charset=\"UTF-8\"", quoted(&realm));
        Ok(Self { users, challenge, user_header, keep })
    }
}

/// Name and password of an `authorization` header; none if it is of another scheme, or broken.
fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(Base64::decode_vec(encoded.trim_ascii()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    // RFC 7617, section 2: neither may have control characters.
    (!decoded.chars().any(char::is_control)).then(|| (name.to_owned(), password.to_owned()))
}

impl BasicAuth {
    /// Who this header proves to be there.
    fn user(&self, header: Option<&str>) -> Option<String> {
        let (name, password) = credentials(header?)?;
        match self.users.get(&name) {
            Some(entry) => entry.fits(&password).then_some(name),
            // As much work as for a user, so that the time does not tell who is one.
            None => {
                std::hint::black_box(Entry::nobody().fits(&password));
                None
            }
        }
    }
}

impl RequestFilter for BasicAuth {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.parse::<Options>()?.try_into()
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        let header = request.header("authorization");
        let Some(user) = self.user(header.as_deref()) else {
            return Verdict::Respond(Reply::unauthorized(&self.challenge, "a name and a password are needed"));
        };
        let told = match &self.user_header {
            Some(name) => request.vouch(&[(name, Some(&user))]),
            None => true,
        };
        // What was checked is what is sent on: there may be more than one such header.
        let passed = match header.filter(|_| self.keep) {
            Some(header) => request.set("authorization", &header),
            None => request.remove("authorization"),
        };
        if told && passed {
            return Verdict::Next;
        }
        Verdict::Respond(Reply::unauthorized(&self.challenge, "a name and a password are needed"))
    }
}

moongate_plugin::plugin!(BasicAuth: RequestFilter; schema = include_str!("../schema.json"));

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(json: &str) -> Result<BasicAuth, String> {
        RequestFilter::configure(Config::new(json))
    }

    /// Who is there, for `name:password`.
    fn user(filter: &BasicAuth, pair: &str) -> Option<String> {
        filter.user(Some(&format!("Basic {}", Base64::encode_string(pair.as_bytes()))))
    }

    #[test]
    fn who_has_name_and_password_is_known() {
        let filter = configure(r#"{"users":{"ada":"plain:a:b","bo":"plain:ü"}}"#).unwrap();
        assert_eq!(user(&filter, "ada:a:b").as_deref(), Some("ada"), "colons belong to the password");
        assert_eq!(user(&filter, "bo:ü").as_deref(), Some("bo"));
        for wrong in ["ada:a", "ada:ü", "Ada:a:b", "eve:a:b", "ada", "ada:", ":", "", "bo:ü\n"] {
            assert_eq!(user(&filter, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_whole_credentials_of_this_scheme_count() {
        // RFC 7617, section 2.
        let aladdin = Some(("Aladdin".to_owned(), "open sesame".to_owned()));
        assert_eq!(credentials("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), aladdin);
        assert_eq!(credentials("basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), aladdin);
        for broken in [
            "",
            "Basic",
            "Basic ",
            "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ",
            "Basic QWxh ZGRpbjpvcGVuIHNlc2FtZQ==",
            "Basic QWxhZGRpbg==",
            "Basic /zo=",
        ] {
            assert_eq!(credentials(broken), None, "{broken}");
        }
        assert_eq!(configure(r#"{"users":{"a":"plain:b"}}"#).unwrap().user(None), None);
    }

    #[test]
    fn users_come_from_a_table_and_from_lines() {
        let filter = configure(
            r##"{"users":{"ada":"plain:1"},"htpasswd":"# staff\n\nbo:plain:2\r\n cy:{SHA}tmkupd+SDK1pHCAxmm//16SnZrg=\n"}"##,
        )
        .unwrap();
        for (pair, name) in [("ada:1", "ada"), ("bo:2", "bo"), ("cy:33", "cy")] {
            assert_eq!(user(&filter, pair).as_deref(), Some(name));
        }
    }

    #[test]
    fn the_challenge_names_the_realm() {
        let filter = configure(r#"{"users":{"a":"plain:b"},"realm":"the \"shop\""}"#).unwrap();
        assert_eq!(filter.challenge, r#"Basic realm="the \"shop\"", charset="UTF-8""#);
    }

    #[test]
    fn mistakes_are_named_and_passwords_are_not() {
        for (json, words) in [
            ("{}", "give `users` or `htpasswd`"),
            (r##"{"htpasswd":"# nobody\n"}"##, "give `users` or `htpasswd`"),
            (r#"{"htpasswd":"a:plain:1\nhunter2"}"#, "`htpasswd`, line 2: no `:`"),
            (r#"{"htpasswd":"a:plain:1\na:plain:hunter2"}"#, "line 2: the user `a` is there twice"),
            (r#"{"users":{"a":"plain:1"},"htpasswd":"a:plain:hunter2"}"#, "the user `a` is there twice"),
            (r#"{"users":{"a:b":"plain:hunter2"}}"#, "a user's name must not"),
            (r#"{"users":{"a":"hunter2"}}"#, "the entry of user `a`"),
            (r#"{"users":{"a":"plain:1"},"user_header":"a b"}"#, "`user_header` is `a b`"),
            (r#"{"users":{"a":"plain:1"},"user_header":"Authorization"}"#, "where the password is"),
            (r#"{"users":{"a":"plain:1"},"realm":"a\nb"}"#, "`realm` has a line break"),
            (r#"{"user":{}}"#, "unknown field `user`"),
        ] {
            let error = configure(json).err().unwrap();
            assert!(error.contains(words), "{json}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_schema_has_the_options() {
        moongate_plugin::testing::assert_schema::<Options>(include_str!("../schema.json"));
    }
}
