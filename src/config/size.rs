//! Numbers of bytes, and what they may be where.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Wasm memory comes in pages of 64 KiB, and a 32-bit memory ends at 4 GiB.
const MEMORY: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 30;

/// A number of bytes: `"64MiB"`, `"1.5 GB"`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = text.parse::<bytesize::ByteSize>();
        size.map(|size| ByteSize(size.as_u64())).map_err(|_| format!("{text:?} is not a size like \"64MiB\""))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = ByteSize;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a size like \"64MiB\" or a number of bytes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom(format!("{bytes} is not a number of bytes")))
            }

            fn visit_u64<E: Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }
        }

        from.deserialize_any(Written)
    }
}

impl serde::Serialize for ByteSize {
    /// In the largest unit that it is a whole number of, so that what is read again is the same.
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(bits, _)| self.0 > 0 && self.0.is_multiple_of(1 << bits)) {
            Some((bits, unit)) => to.collect_str(&format_args!("{}{unit}", self.0 >> bits)),
            None => to.serialize_u64(self.0),
        }
    }
}

impl schemars::JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "integer"],
            "minimum": 0,
            "title": "a size like \"64MiB\" or a number of bytes",
        })
    }
}

/// A [`ByteSize`] that a plugin's memory may have.
pub(super) fn memory_limit<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(from)?;
    if MEMORY.contains(&size.0) {
        Ok(size)
    } else {
        Err(D::Error::custom(format!("{} bytes is not between 64KiB and 4GiB", size.0)))
    }
}

/// A [`ByteSize`] in whole KiB from the one to the other.
pub(super) fn kibibytes<'de, const LEAST: u64, const MOST: u64, D: Deserializer<'de>>(
    from: D,
) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(from)?;
    if (LEAST << 10..=MOST << 10).contains(&size.0) {
        Ok(size)
    } else {
        Err(D::Error::custom(format!("{} bytes is not between {LEAST}KiB and {MOST}KiB", size.0)))
    }
}
