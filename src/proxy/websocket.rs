//! As much of WebSocket (RFC 6455) as it takes to end a connection politely that is only passed on: where frames begin
//! and end, and the frame that says goodbye.

use bytes::Bytes;

/// `Going Away`: the server is going down (RFC 6455, section 7.4.1).
const GOING_AWAY: [u8; 2] = 1001u16.to_be_bytes();

/// Opcode 8, close, in one piece.
const CLOSE: u8 = 0x88;

/// Where in a frame a stream is.
#[derive(Debug, Default)]
pub struct Frames {
    head: [u8; 14],
    /// Bytes of `head` that are there.
    have: usize,
    /// Bytes of payload that are left.
    payload: u64,
}

impl Frames {
    /// Whether the next byte begins a frame.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Goes over all these bytes.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = self.to_boundary(bytes);
            bytes = &bytes[length..];
        }
    }

    /// Goes over bytes up to the end of the frame, or all of them; says how many.
    pub fn to_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.payload > 0 {
                let here = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.payload -= here as u64;
                at += here;
            } else {
                self.head[self.have] = bytes[at];
                self.have += 1;
                at += 1;
                if self.have < self.head_length() {
                    continue;
                }
                self.payload = self.payload_length();
                self.have = 0;
            }
            if self.at_boundary() {
                return at;
            }
        }
        at
    }

    /// How long the head is, as far as that can be told (section 5.2).
    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let mask = if self.head[1] & 0x80 != 0 { 4 } else { 0 };
        mask + match self.head[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn payload_length(&self) -> u64 {
        match self.head[1] & 0x7f {
            126 => u16::from_be_bytes([self.head[2], self.head[3]]).into(),
            127 => {
                let mut length = [0; 8];
                length.copy_from_slice(&self.head[2..10]);
                u64::from_be_bytes(length)
            }
            length => length.into(),
        }
    }
}

/// The frame that ends a connection; what a client sends is masked (section 5.3), with `mask`.
pub fn goodbye(mask: Option<[u8; 4]>) -> Bytes {
    match mask {
        None => Bytes::from(vec![CLOSE, 2, GOING_AWAY[0], GOING_AWAY[1]]),
        Some(mask) => {
            let mut frame = vec![CLOSE, 0x82];
            frame.extend_from_slice(&mask);
            frame.extend(GOING_AWAY.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
            frame.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_sizes_are_told_apart_however_they_arrive() {
        let frames: [&[u8]; 5] = [
            &[0x81, 0],
            &[0x82, 0x83, 1, 2, 3, 4, 9, 9, 9],
            &[&[0x82, 126, 1, 0][..], &[7; 256]].concat(),
            &[&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65536]].concat(),
            &goodbye(Some([1, 2, 3, 4])),
        ];
        let all = frames.concat();
        for piece in [1, 2, 3, 7, 1000, all.len()] {
            let (mut state, mut ends, mut at) = (Frames::default(), Vec::new(), 0);
            for mut bytes in all.chunks(piece) {
                while !bytes.is_empty() {
                    let length = state.to_boundary(bytes);
                    at += length;
                    bytes = &bytes[length..];
                    if state.at_boundary() {
                        ends.push(at);
                    }
                }
            }
            let mut expected = 0;
            let expected = frames.map(|frame| {
                expected += frame.len();
                expected
            });
            assert_eq!(ends, expected, "in pieces of {piece}");
        }
        assert_eq!(goodbye(None)[..], [0x88, 2, 3, 0xe9]);
    }
}
