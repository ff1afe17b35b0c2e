//! Sets, appends or removes one header of the request, the response or both.
//!
//! ```toml
//! filters = [{ plugin = "set-header", config = { name = "x-env", value = "prod", on = "both" } }]
//! ```

use moongate_plugin::http::{check_header_name, check_header_value};
use moongate_plugin::{Config, Request, RequestFilter, Response, ResponseFilter, Step, Verdict, skip};

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    name: String,
    value: Option<String>,
    #[serde(default)]
    on: On,
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum On {
    #[default]
    Request,
    Response,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Set,
    Append,
    Remove,
}

/// What runs: a name and a value that HTTP allows.
#[derive(Debug, PartialEq)]
struct SetHeader {
    name: String,
    /// Empty if the header is removed.
    value: String,
    on: On,
    mode: Mode,
}

impl TryFrom<Options> for SetHeader {
    type Error = String;

    fn try_from(Options { name, value, on, mode }: Options) -> Result<Self, String> {
        check_header_name("name", &name)?;
        let value = match (mode, value) {
            (Mode::Remove, None) => String::new(),
            (Mode::Remove, Some(_)) => {
                return Err("`value` does not go with `mode` = `remove`".into());
            }
            (_, None) => return Err("`value` is missing: what is the header to be?".into()),
            (_, Some(value)) => value,
        };
        check_header_value("value", &value)?;
        Ok(Self { name, value, on, mode })
    }
}

impl RequestFilter for SetHeader {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        let this: SetHeader = config.parse::<Options>()?.try_into()?;
        match this.on {
            On::Request => skip(Step::Response),
            On::Response => skip(Step::Request),
            On::Both => {}
        }
        Ok(this)
    }

    fn on_request(&mut self, request: Request) -> Verdict {
        match self.mode {
            Mode::Set => request.set(&self.name, &self.value),
            Mode::Append => request.append(&self.name, &self.value),
            Mode::Remove => request.remove(&self.name),
        };
        Verdict::Next
    }
}

impl ResponseFilter for SetHeader {
    fn on_response(&mut self, _request: Request, response: Response) -> Verdict {
        match self.mode {
            Mode::Set => response.set(&self.name, &self.value),
            Mode::Append => response.append(&self.name, &self.value),
            Mode::Remove => response.remove(&self.name),
        };
        Verdict::Next
    }
}

moongate_plugin::plugin!(SetHeader: RequestFilter, ResponseFilter; schema = include_str!("../schema.json"));

#[cfg(test)]
mod tests {
    use super::*;

    fn configure(json: &str) -> Result<SetHeader, String> {
        RequestFilter::configure(Config::new(json))
    }

    #[test]
    fn defaults_are_to_set_on_the_request() {
        let (name, value) = ("x-env".into(), "prod".into());
        let expected = SetHeader { name, value, on: On::Request, mode: Mode::Set };
        assert_eq!(configure(r#"{"name":"x-env","value":"prod"}"#), Ok(expected));
        let (name, value) = ("Server".into(), String::new());
        let expected = SetHeader { name, value, on: On::Both, mode: Mode::Remove };
        assert_eq!(configure(r#"{"name":"Server","on":"both","mode":"remove"}"#), Ok(expected));
    }

    #[test]
    fn the_schema_has_the_options() {
        moongate_plugin::testing::assert_schema::<Options>(include_str!("../schema.json"));
    }

    #[test]
    fn mistakes_are_named() {
        for (json, words) in [
            ("{}", "missing field `name`"),
            (r#"{"nme":"x"}"#, "unknown field `nme`, expected one of `name`, `value`, `on`, `mode`"),
            (r#"{"name":"x","value":"y","on":"always"}"#, "unknown variant `always`"),
            (r#"{"name":"","value":"y"}"#, "`name` is empty"),
            (r#"{"name":"x y","value":"y"}"#, "`name` is `x y`"),
            (r#"{"name":"Content-Length","value":"1"}"#, "the gateway itself answers for"),
            (r#"{"name":"x"}"#, "`value` is missing"),
            (r#"{"name":"x","value":1}"#, "expected a string"),
            (r#"{"name":"x","value":"a\r\nb: c"}"#, "control character"),
            (r#"{"name":"x","value":"y","mode":"remove"}"#, "does not go with"),
        ] {
            let error = configure(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
