//! Origins as browsers write them (RFC 6454, section 6.2), and patterns of them.

/// Origins that are allowed.
#[derive(Debug)]
pub(crate) struct Origins {
    all: bool,
    exact: Vec<String>,
    /// Scheme with `://`, and what follows the `*`, with its dot: `https://` and `.example.com:8443`.
    below: Vec<(String, String)>,
}

impl Origins {
    pub(crate) fn new(texts: &[String]) -> Result<Self, String> {
        let mut origins = Self { all: false, exact: Vec::new(), below: Vec::new() };
        if texts.is_empty() {
            return Err("`origins` is empty: name an origin such as `https://app.example.com`, or `*`".into());
        }
        for text in texts {
            let text = text.to_ascii_lowercase();
            match text.as_str() {
                "*" => origins.all = true,
                "null" => origins.exact.push(text),
                _ => {
                    let (scheme, host) = split(&text)?;
                    match host.strip_prefix('*') {
                        Some(suffix) if suffix.starts_with('.') && !suffix.contains('*') => {
                            origins.below.push((scheme.into(), suffix.into()));
                        }
                        None if !host.contains('*') => origins.exact.push(text),
                        _ => {
                            return Err(format!(
                                "`origins` has `{text}`: a `*` stands for names before a dot, as in `https://*.example.com`"
                            ));
                        }
                    }
                }
            }
        }
        Ok(origins)
    }

    /// Whether every origin is allowed, and so all can be told the same.
    pub(crate) fn are_all(&self) -> bool {
        self.all
    }

    pub(crate) fn contain(&self, origin: &str) -> bool {
        let below = |(scheme, suffix): &(String, String)| {
            let name = origin.strip_prefix(scheme.as_str()).and_then(|host| host.strip_suffix(suffix.as_str()));
            // Only what can be in a name: else `https://evil.example:1/.example.com` would be one.
            name.is_some_and(|name| {
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
            })
        };
        self.all || self.exact.iter().any(|exact| exact == origin) || self.below.iter().any(below)
    }
}

/// Scheme with `://`, and host with the port.
fn split(text: &str) -> Result<(&str, &str), String> {
    let no_origin = || format!("`origins` has `{text}`, which is no origin: `https://app.example.com`, without a path");
    let end = text.find("://").ok_or_else(no_origin)? + 3;
    let (scheme, host) = text.split_at(end);
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]*".contains(&byte);
    if end == 3 || host.is_empty() || !host.bytes().all(in_host) {
        return Err(no_origin());
    }
    let default = [("https://", ":443"), ("http://", ":80")];
    if let Some((_, port)) = default.iter().find(|(of, port)| scheme == *of && host.ends_with(port)) {
        return Err(format!("`origins` has `{text}`, but browsers leave `{port}` out"));
    }
    Ok((scheme, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(texts: &[&str]) -> Result<Origins, String> {
        Origins::new(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_origin_is_itself_alone() {
        let origins = origins(&["https://App.example.com", "http://localhost:8080", "null"]).unwrap();
        for origin in ["https://app.example.com", "http://localhost:8080", "null"] {
            assert!(origins.contain(origin), "{origin}");
        }
        for origin in [
            "",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.example",
            "https://example.com",
            "http://localhost",
        ] {
            assert!(!origins.contain(origin), "{origin}");
        }
    }

    #[test]
    fn a_star_is_names_below_and_nothing_else() {
        let origins = origins(&["https://*.example.com", "https://*.dev.example:8443"]).unwrap();
        for origin in ["https://a.example.com", "https://a.b.example.com", "https://x.dev.example:8443"] {
            assert!(origins.contain(origin), "{origin}");
        }
        for origin in [
            "https://example.com",
            "https://.example.com",
            "http://a.example.com",
            "https://aexample.com",
            "https://evil.example/.example.com",
            "https://evil.example:1.example.com",
            "https://evil.example?.example.com",
            "https://a.example.com:8443",
            "https://x.dev.example",
        ] {
            assert!(!origins.contain(origin), "{origin}");
        }
    }

    #[test]
    fn all_are_all() {
        let all = origins(&["https://a.example", "*"]).unwrap();
        assert!(all.are_all() && all.contain("https://b.example") && all.contain("null"));
        assert!(!origins(&["https://a.example"]).unwrap().are_all());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("example.com", "is no origin"),
            ("https://", "is no origin"),
            ("://a", "is no origin"),
            ("https://a/", "without a path"),
            ("https://a b", "is no origin"),
            ("https://*", "stands for names before a dot"),
            ("https://a.*.example", "stands for names before a dot"),
            ("https://*.*.example", "stands for names before a dot"),
            ("https://a*.example", "stands for names before a dot"),
            ("https://a:443", "leave `:443` out"),
            ("http://a:80", "leave `:80` out"),
        ] {
            let error = origins(&[text]).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(origins(&["http://a:443"]).is_ok());
    }
}
