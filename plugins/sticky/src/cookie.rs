//! The cookie: its options, and the header field that sets it (RFC 6265, section 4.1; prefixes and `SameSite` as in
//! its successor, draft-ietf-httpbis-rfc6265bis).

use moongate_plugin::is_token;

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    pub(crate) cookie: String,
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    pub(crate) max_age: Option<u32>,
    pub(crate) secure: bool,
    pub(crate) http_only: bool,
    pub(crate) same_site: SameSite,
    pub(crate) secret: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SameSite {
    Lax,
    Strict,
    None,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cookie: "moongate_session".into(),
            path: "/".into(),
            domain: None,
            max_age: None,
            secure: false,
            http_only: true,
            same_site: SameSite::Lax,
            secret: None,
        }
    }
}

/// What runs.
#[derive(Debug, PartialEq)]
pub(crate) struct Cookie {
    pub(crate) name: String,
    /// What follows the value in `set-cookie`.
    attributes: String,
}

impl Cookie {
    /// # Errors
    /// For what no browser would keep, and what would not be one header field.
    pub(crate) fn new(options: &Options) -> Result<Self, String> {
        let host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let Options { cookie: name, path, domain, secure, same_site, .. } = options;
        if !is_token(name) {
            return Err(format!("`cookie` is `{name}`, which is no cookie's name: letters, digits and - _ . only"));
        }
        if !path.starts_with('/') || path.bytes().any(|byte| !matches!(byte, b' '..=b'~') || byte == b';') {
            return Err("`path` must start with `/` and have no `;` or control characters in it".into());
        }
        if domain.as_ref().is_some_and(|it| it.is_empty() || !it.bytes().all(host)) {
            return Err(
                "`domain` must be a name such as `example.com`; leave it out for the host asked for only".into()
            );
        }
        if options.max_age == Some(0) {
            return Err("`max_age` is 0, which deletes the cookie: at least 1, or leave it out".into());
        }
        if *same_site == SameSite::None && !secure {
            return Err("`same_site` = `none` needs `secure` = true: browsers drop such a cookie otherwise".into());
        }
        let (for_host, for_secure) = (name.starts_with("__Host-"), name.starts_with("__Secure-"));
        if (for_host || for_secure) && !secure || for_host && (path != "/" || domain.is_some()) {
            let rule = "`__Host-` also `path` = `/` and no `domain`";
            return Err(format!("`cookie` is `{name}`: names with `__Secure-` need `secure` = true, with {rule}"));
        }
        let mut attributes = format!("; Path={path}");
        if let Some(domain) = domain {
            attributes += &format!("; Domain={domain}");
        }
        if let Some(max_age) = options.max_age {
            attributes += &format!("; Max-Age={max_age}");
        }
        if *secure {
            attributes += "; Secure";
        }
        if options.http_only {
            attributes += "; HttpOnly";
        }
        attributes += match same_site {
            SameSite::Lax => "; SameSite=Lax",
            SameSite::Strict => "; SameSite=Strict",
            SameSite::None => "; SameSite=None",
        };
        Ok(Self { name: name.clone(), attributes })
    }

    /// The value in a request's field `cookie`: the first of this name, as the gateway finds it for `pick`.
    pub(crate) fn find<'a>(&self, field: &'a str) -> Option<&'a str> {
        field.split(';').find_map(|pair| pair.trim_ascii().strip_prefix(&*self.name)?.strip_prefix('='))
    }

    /// The value of `set-cookie`.
    pub(crate) fn set(&self, value: &str) -> String {
        [&self.name, "=", value, &self.attributes].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moongate_plugin::Config;

    fn cookie(json: &str) -> Result<Cookie, String> {
        Cookie::new(&Config::new(json).parse()?)
    }

    #[test]
    fn attributes_are_those_configured() {
        let set = |json| cookie(json).unwrap().set("ab");
        assert_eq!(set("{}"), "moongate_session=ab; Path=/; HttpOnly; SameSite=Lax");
        let all = r#"{"cookie":"id","path":"/shop","domain":"example.com","max_age":3600,"secure":true,"http_only":false,
            "same_site":"none","secret":"s"}"#;
        assert_eq!(set(all), "id=ab; Path=/shop; Domain=example.com; Max-Age=3600; Secure; SameSite=None");
        let strict = r#"{"cookie":"__Host-id","secure":true,"same_site":"strict"}"#;
        assert_eq!(set(strict), "__Host-id=ab; Path=/; Secure; HttpOnly; SameSite=Strict");
    }

    #[test]
    fn the_first_cookie_of_exactly_that_name_is_found() {
        let cookie = cookie(r#"{"cookie":"id"}"#).unwrap();
        assert_eq!(cookie.find("xid=1; id=2;id=3"), Some("2"));
        assert_eq!(cookie.find("ID=1; idx=2; id"), None);
        assert_eq!(cookie.find("id="), Some(""));
    }

    #[test]
    fn mistakes_are_named() {
        for (json, words) in [
            (r#"{"cookie":""}"#, "`cookie` is ``"),
            (r#"{"cookie":"a b"}"#, "`cookie` is `a b`"),
            (r#"{"path":"shop"}"#, "`path` must start with `/`"),
            (r#"{"path":"/;Secure"}"#, "`path` must"),
            (r#"{"path":"/\r\n"}"#, "`path` must"),
            (r#"{"domain":""}"#, "`domain` must be a name"),
            (r#"{"domain":"a; Secure"}"#, "`domain` must be a name"),
            (r#"{"max_age":0}"#, "`max_age` is 0"),
            (r#"{"same_site":"none"}"#, "needs `secure` = true"),
            (r#"{"same_site":"Lax"}"#, "unknown variant `Lax`, expected one of `lax`, `strict`, `none`"),
            (r#"{"cookie":"__Secure-id"}"#, "`__Secure-` need `secure` = true"),
            (r#"{"cookie":"__Host-id","secure":true,"path":"/shop"}"#, "no `domain`"),
            (r#"{"secrets":"s"}"#, "unknown field `secrets`"),
        ] {
            let error = cookie(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn the_schema_names_the_options() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
        let named: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        // "unknown field `?`, expected one of `a`, `b`"
        let error = cookie(r#"{"?":0}"#).unwrap_err();
        let mut accepted: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        accepted.sort_unstable();
        assert_eq!(named, accepted);
    }
}
