//! Frames (RFC 9113, sections 4 and 6): what their bytes say, as far as that can be told without knowing the connection.

/// Bytes of a frame's head.
pub const HEAD: usize = 9;

/// Bytes of the longest frame behind its head: the least that both sides must allow, and we ask for no more.
pub const LONGEST: usize = 16 << 10;

/// The largest window, and the largest number of a stream.
pub const MOST: u32 = (1 << 31) - 1;

/// What frames there are.
pub mod kind {
    #![expect(missing_docs, reason = "the specification's names")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// What a bit in a frame's head means.
pub mod flag {
    #![expect(missing_docs, reason = "the specification's names")]
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 32;
}

/// Why a stream or a connection ends (RFC 9113, section 7).
pub mod reason {
    #![expect(missing_docs, reason = "the specification's names")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// What can be asked for by SETTINGS.
pub mod setting {
    #![expect(missing_docs, reason = "the specification's names")]
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes behind it.
    pub length: usize,
    /// Of [`kind`], or one that nobody knows.
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// The stream; 0: the connection.
    pub stream: u32,
}

impl Head {
    /// The head that the bytes begin with, if all of it is there.
    pub fn read(bytes: &[u8]) -> Option<Head> {
        let [one, two, three, kind, flags, stream @ ..] = bytes.first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([0, *one, *two, *three]) as usize;
        Some(Head { length, kind: *kind, flags: *flags, stream: u32::from_be_bytes(*stream) & MOST })
    }

    /// As it is written.
    pub fn bytes(self) -> [u8; HEAD] {
        let [_, one, two, three] = (self.length as u32).to_be_bytes();
        let [a, b, c, d] = self.stream.to_be_bytes();
        [one, two, three, self.kind, self.flags, a, b, c, d]
    }

    /// Whether a bit is set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A piece of a body: so many bytes, behind so many others.
    Data {
        /// Bytes before the data.
        skip: usize,
        /// Bytes of data.
        length: usize,
    },
    /// The beginning of a field block.
    Headers(&'a [u8]),
    /// More of a field block.
    Continuation(&'a [u8]),
    /// The client takes a stream back, and says why.
    Reset(u32),
    /// What the client asks for.
    Settings(&'a [[u8; 6]]),
    /// The client has read what we ask for.
    SettingsAck,
    /// To be sent back.
    Ping([u8; 8]),
    /// What we have sent has come back.
    Pong([u8; 8]),
    /// So many bytes more may be sent; zero is wrong, but whose fault it is depends on the stream.
    WindowUpdate(u32),
    /// What means nothing to us: the client's last words, priorities, frames that nobody knows.
    Nothing,
}

/// Reads what stands behind a head, of which `payload` is all.
///
/// # Errors
/// What is wrong with it, of [`reason`]; as an error of the connection, which the specification allows for all of them.
pub fn read(head: Head, payload: &[u8]) -> Result<Frame<'_>, u32> {
    let on_stream = head.stream != 0;
    let of = |stream: bool, right: bool| match (stream == on_stream, right) {
        (true, true) => Ok(()),
        (false, _) => Err(reason::PROTOCOL_ERROR),
        (_, false) => Err(reason::FRAME_SIZE_ERROR),
    };
    match head.kind {
        kind::DATA => {
            of(true, true)?;
            let (skip, length) = unpadded(head, payload)?;
            Ok(Frame::Data { skip, length })
        }
        kind::HEADERS => {
            of(true, true)?;
            let (skip, length) = unpadded(head, payload)?;
            let mut block = &payload[skip..skip + length];
            if head.has(flag::PRIORITY) {
                let (priority, rest) = block.split_at_checked(5).ok_or(reason::FRAME_SIZE_ERROR)?;
                depends(head, priority)?;
                block = rest;
            }
            Ok(Frame::Headers(block))
        }
        kind::CONTINUATION => of(true, true).map(|()| Frame::Continuation(payload)),
        kind::PRIORITY => {
            of(true, payload.len() == 5)?;
            depends(head, payload).map(|()| Frame::Nothing)
        }
        kind::RST_STREAM => {
            of(true, payload.len() == 4)?;
            Ok(Frame::Reset(number(payload)))
        }
        kind::SETTINGS if head.has(flag::ACK) => of(false, payload.is_empty()).map(|()| Frame::SettingsAck),
        kind::SETTINGS => {
            let (settings, rest) = payload.as_chunks();
            of(false, rest.is_empty())?;
            Ok(Frame::Settings(settings))
        }
        // Only servers push.
        kind::PUSH_PROMISE => Err(reason::PROTOCOL_ERROR),
        kind::PING => {
            of(false, payload.len() == 8)?;
            let mut bytes = [0; 8];
            bytes.copy_from_slice(payload);
            Ok(if head.has(flag::ACK) { Frame::Pong(bytes) } else { Frame::Ping(bytes) })
        }
        kind::GOAWAY => of(false, payload.len() >= 8).map(|()| Frame::Nothing),
        kind::WINDOW_UPDATE if payload.len() != 4 => Err(reason::FRAME_SIZE_ERROR),
        kind::WINDOW_UPDATE => Ok(Frame::WindowUpdate(number(payload) & MOST)),
        _ => Ok(Frame::Nothing),
    }
}

/// Where the content of a frame that may be padded is: behind so many bytes, and how long.
fn unpadded(head: Head, payload: &[u8]) -> Result<(usize, usize), u32> {
    if !head.has(flag::PADDED) {
        return Ok((0, payload.len()));
    }
    let padding = usize::from(*payload.first().ok_or(reason::FRAME_SIZE_ERROR)?);
    match (payload.len() - 1).checked_sub(padding) {
        Some(length) => Ok((1, length)),
        None => Err(reason::PROTOCOL_ERROR),
    }
}

/// Priorities mean nothing any more, but no stream may depend on itself (RFC 7540, section 5.3.1).
fn depends(head: Head, priority: &[u8]) -> Result<(), u32> {
    if number(priority) & MOST == head.stream { Err(reason::PROTOCOL_ERROR) } else { Ok(()) }
}

/// The number that the bytes, at least four, begin with.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |it| u32::from_be_bytes(*it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Frame<'_>, u32> {
        read(Head { length: payload.len(), kind, flags, stream }, payload)
    }

    #[test]
    fn heads_are_read_as_they_are_written() {
        let head = Head { length: 0x01_02_03, kind: 7, flags: 0xa5, stream: 0x7f01_0203 };
        assert_eq!(Head::read(&head.bytes()), Some(head));
        assert_eq!(Head::read(&head.bytes()[..8]), None);
        // The first bit of the stream means nothing.
        assert_eq!(Head::read(&[0, 0, 0, 0, 0, 0x80, 0, 0, 1]).map(|it| it.stream), Some(1));
    }

    #[test]
    fn what_frames_say() {
        use flag::*;
        use kind::*;
        assert_eq!(frame(DATA, 0, 1, b"abc"), Ok(Frame::Data { skip: 0, length: 3 }));
        assert_eq!(frame(DATA, PADDED, 1, b"\x02abc--"), Ok(Frame::Data { skip: 1, length: 3 }));
        assert_eq!(frame(DATA, PADDED, 1, b"\x01-"), Ok(Frame::Data { skip: 1, length: 0 }));
        assert_eq!(frame(HEADERS, PADDED | flag::PRIORITY, 1, b"\x01\0\0\0\x03\x10ab-"), Ok(Frame::Headers(b"ab")));
        assert_eq!(frame(CONTINUATION, 0, 1, b"ab"), Ok(Frame::Continuation(b"ab")));
        assert_eq!(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), Ok(Frame::Reset(8)));
        assert_eq!(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]), Ok(Frame::Settings(&[[0, 4, 0, 0, 1, 0]])));
        assert_eq!(frame(SETTINGS, ACK, 0, b""), Ok(Frame::SettingsAck));
        assert_eq!(frame(PING, 0, 0, b"12345678"), Ok(Frame::Ping(*b"12345678")));
        assert_eq!(frame(PING, ACK, 0, b"12345678"), Ok(Frame::Pong(*b"12345678")));
        assert_eq!(frame(WINDOW_UPDATE, 0, 7, &[0x80, 0, 0, 1]), Ok(Frame::WindowUpdate(1)));
        assert_eq!(frame(GOAWAY, 0, 0, b"12345678why"), Ok(Frame::Nothing));
        assert_eq!(frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), Ok(Frame::Nothing));
        assert_eq!(frame(0xfa, 0xff, 3, b"?"), Ok(Frame::Nothing));
    }

    #[test]
    fn what_is_wrong_with_frames() {
        use kind::*;
        let wrong: [(u8, u8, u32, &[u8], u32); 22] = [
            (DATA, 0, 0, b"", reason::PROTOCOL_ERROR),
            (DATA, flag::PADDED, 1, b"", reason::FRAME_SIZE_ERROR),
            (DATA, flag::PADDED, 1, b"\x01", reason::PROTOCOL_ERROR),
            (HEADERS, 0, 0, b"", reason::PROTOCOL_ERROR),
            (HEADERS, flag::PADDED, 1, b"\x02a", reason::PROTOCOL_ERROR),
            (HEADERS, flag::PRIORITY, 1, b"1234", reason::FRAME_SIZE_ERROR),
            (HEADERS, flag::PRIORITY, 1, b"\x80\0\0\x01\x01", reason::PROTOCOL_ERROR),
            (CONTINUATION, 0, 0, b"", reason::PROTOCOL_ERROR),
            (kind::PRIORITY, 0, 0, b"12345", reason::PROTOCOL_ERROR),
            (kind::PRIORITY, 0, 1, b"1234", reason::FRAME_SIZE_ERROR),
            (kind::PRIORITY, 0, 3, &[0, 0, 0, 3, 1], reason::PROTOCOL_ERROR),
            (RST_STREAM, 0, 0, b"1234", reason::PROTOCOL_ERROR),
            (RST_STREAM, 0, 1, b"123", reason::FRAME_SIZE_ERROR),
            (SETTINGS, 0, 1, b"", reason::PROTOCOL_ERROR),
            (SETTINGS, 0, 0, b"12345", reason::FRAME_SIZE_ERROR),
            (SETTINGS, flag::ACK, 0, b"123456", reason::FRAME_SIZE_ERROR),
            (PUSH_PROMISE, 0, 1, b"1234", reason::PROTOCOL_ERROR),
            (PING, 0, 1, b"12345678", reason::PROTOCOL_ERROR),
            (PING, 0, 0, b"1234567", reason::FRAME_SIZE_ERROR),
            (GOAWAY, 0, 1, b"12345678", reason::PROTOCOL_ERROR),
            (GOAWAY, 0, 0, b"1234567", reason::FRAME_SIZE_ERROR),
            (WINDOW_UPDATE, 0, 0, b"12345", reason::FRAME_SIZE_ERROR),
        ];
        for (kind, flags, stream, payload, why) in wrong {
            assert_eq!(frame(kind, flags, stream, payload), Err(why), "{kind} {flags} {stream} {payload:?}");
        }
    }
}
