//! A use of a plugin, as it is written: its name alone, or a table with its configuration.
//!
//! Whether there is such a plugin and whether it accepts its configuration is asked in [`super::file`].

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use toml::Spanned;

use super::{Balancer, BalancerFailure, Filter, FilterFailure, PluginName};

/// A plugin in use: `"name"` or `{ plugin = "name", config = { … }, on_failure = "…" }`. `F`: what its failure may
/// be said to mean.
#[derive(Clone, Debug)]
pub struct PluginUse<F> {
    /// The name of the plugin.
    pub plugin: PluginName,
    /// The table `config` as JSON; `{}` if absent.
    pub config: Arc<str>,
    /// As written.
    pub on_failure: Option<F>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum PluginUseKey {
    Plugin,
    Config,
    OnFailure,
}

// By hand: `untagged` would say "did not match any variant" at the whole value, for a mistake anywhere within.
impl<'de, F: Deserialize<'de>> Deserialize<'de> for PluginUse<F> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written<F>(PhantomData<F>);

        impl<'de, F: Deserialize<'de>> Visitor<'de> for Written<F> {
            type Value = PluginUse<F>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a plugin's name or a table like { plugin = \"name\", config = { } }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let plugin = text.parse().map_err(E::custom)?;
                Ok(PluginUse { plugin, config: "{}".into(), on_failure: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut plugin, mut config, mut on_failure) = (None, None, None);
                while let Some(key) = map.next_key()? {
                    match key {
                        PluginUseKey::Plugin => plugin = Some(map.next_value()?),
                        PluginUseKey::Config => config = Some(map.next_value::<PluginConfig>()?.0),
                        PluginUseKey::OnFailure => on_failure = Some(map.next_value()?),
                    }
                }
                let plugin = plugin.ok_or_else(|| A::Error::missing_field("plugin"))?;
                Ok(PluginUse { plugin, config: config.unwrap_or_else(|| "{}".into()), on_failure })
            }
        }

        from.deserialize_any(Written(PhantomData))
    }
}

impl From<Spanned<PluginUse<BalancerFailure>>> for Balancer {
    fn from(written: Spanned<PluginUse<BalancerFailure>>) -> Balancer {
        let at = written.span();
        let PluginUse { plugin, config, on_failure } = written.into_inner();
        Balancer { plugin, config, on_failure, at }
    }
}

impl From<Spanned<PluginUse<FilterFailure>>> for Filter {
    fn from(written: Spanned<PluginUse<FilterFailure>>) -> Filter {
        let at = written.span();
        let PluginUse { plugin, config, on_failure } = written.into_inner();
        Filter { plugin, config, on_failure, at }
    }
}

/// A table of anything, as JSON.
struct PluginConfig(Arc<str>);

impl<'de> Deserialize<'de> for PluginConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let table = toml::Table::deserialize(from)?;
        let json = json(toml::Value::Table(table)).map_err(D::Error::custom)?;
        Ok(PluginConfig(json.to_string().into()))
    }
}

fn json(value: toml::Value) -> Result<serde_json::Value, String> {
    Ok(match value {
        toml::Value::String(it) => it.into(),
        toml::Value::Integer(it) => it.into(),
        toml::Value::Float(it) if it.is_finite() => it.into(),
        toml::Value::Float(it) => {
            return Err(format!("{it} cannot be told to a plugin, because JSON has no such number"));
        }
        toml::Value::Boolean(it) => it.into(),
        // JSON has no dates.
        toml::Value::Datetime(it) => it.to_string().into(),
        toml::Value::Array(all) => serde_json::Value::Array(all.into_iter().map(json).collect::<Result<_, _>>()?),
        toml::Value::Table(all) => serde_json::Value::Object(
            all.into_iter().map(|(key, value)| Ok((key, json(value)?))).collect::<Result<_, String>>()?,
        ),
    })
}
