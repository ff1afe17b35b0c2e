//! HPACK (RFC 7541): how heads are compressed. What a field means is not decided here.

mod decode;
mod encode;
mod huffman;
mod table;

pub use decode::{Broken, Decoder, Field};
pub use encode::Encoder;
pub use huffman::LENGTHS;
pub use table::STATIC;

/// What a table holds where nobody says otherwise (RFC 9113, section 6.5.2). We never ask for more, and use no more.
pub const TABLE: usize = 4096;
