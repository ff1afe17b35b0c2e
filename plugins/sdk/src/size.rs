//! Numbers of bytes, as operators write them.

use serde::{Deserialize, Deserializer, de};
use std::fmt;

/// A number of bytes: a number, or text such as `"64KiB"`, `"10 MB"`. `B`, `kB`, `MB` and `GB` are powers of 1,000, `KiB`,
/// `MiB` and `GiB` powers of 1,024, and letters may be of either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// The size that this text means; none if it means none, or more than a `u64` holds.
    pub fn of(text: &str) -> Option<Self> {
        let digits = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits)?;
        let factor: u64 = match unit.trim_ascii().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1000,
            "mb" => 1000 * 1000,
            "gb" => 1000 * 1000 * 1000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, such as 65536 or \"64KiB\"")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                Size::of(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        // Not `deserialize_any`, which brings the code that reads fractions along.
        deserializer.deserialize_u64(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_or_without_a_unit() {
        for (text, bytes) in [("0", 0), ("12B", 12), ("64KiB", 65_536), ("64 kb", 64_000), ("10MiB", 10 << 20)] {
            assert_eq!(Size::of(text), Some(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "10 M", "10MiBs", "99999999999GiB", "ä"] {
            assert_eq!(Size::of(text), None, "{text}");
        }
    }

    #[test]
    fn both_forms_are_read_and_mistakes_explained() {
        assert_eq!(crate::json::read("[1, \"1KiB\"]"), Ok(vec![Size(1), Size(1024)]));
        let expected = "expected a number of bytes, such as 65536 or \"64KiB\"";
        assert_eq!(crate::json::read::<Size>("\"1 KB/s\"").unwrap_err(), expected);
        assert_eq!(crate::json::read::<Size>("-1").unwrap_err(), format!("{expected}, found a number"));
    }
}
