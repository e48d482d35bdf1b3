//! Answers that hold a secret, hidden from the HTTP library's log, which shows every byte it reads.
//!
//! Letters and signs beyond the hexadecimal digits are exchanged for others before the library sees
//! them, and back afterwards. Sizes of chunks are hexadecimal, so the library still understands the
//! answer; a token without these letters is of no use.

use ureq::unversioned::transport::Transport;

/// What was read of an answer and not yet consumed, its body masked.
#[derive(Debug, Default)]
pub(crate) struct MaskedInput {
    bytes: Vec<u8>,
    /// The last bytes of the head, until it has ended.
    head: Vec<u8>,
    is_in_body: bool,
    has_progress: bool,
}

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Its own inverse.
fn exchanged(byte: u8) -> u8 {
    match byte {
        b'g'..=b'z' => b'g' + (b'z' - byte),
        b'G'..=b'Z' => b'G' + (b'Z' - byte),
        b'-' => b'_',
        b'_' => b'-',
        other => other,
    }
}

/// Makes a body what it was before it was masked.
pub(crate) fn unmask(body: &mut [u8]) {
    for byte in body {
        *byte = exchanged(*byte);
    }
}

impl MaskedInput {
    /// Takes all that a connection has read.
    pub fn take(&mut self, from: &mut dyn Transport) {
        let buffers = from.buffers();
        let read = buffers.input().len();
        for &byte in buffers.input() {
            self.bytes.push(if self.is_in_body { exchanged(byte) } else { byte });
            if !self.is_in_body {
                self.head.push(byte);
                self.is_in_body = self.head.ends_with(END_OF_HEAD);
            }
        }
        buffers.input_consume(read);
        self.has_progress = true;
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn consume(&mut self, amount: usize) {
        self.has_progress = amount > 0;
        self.bytes.drain(..amount);
    }

    pub fn can_be_used(&self) -> bool {
        self.has_progress && !self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_twice_changes_nothing_and_hexadecimal_digits_stay() {
        let all: Vec<u8> = (0..=255).collect();
        let mut twice = all.clone();
        unmask(&mut twice);
        assert_ne!(twice, all);
        unmask(&mut twice);
        assert_eq!(twice, all);
        let mut sizes = b"1a2B\r\n0123456789abcdefABCDEF\r\n".to_vec();
        unmask(&mut sizes);
        assert_eq!(sizes, b"1a2B\r\n0123456789abcdefABCDEF\r\n");
        let mut token = *b"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.sig-_";
        unmask(&mut token);
        let same =
            token.iter().zip(b"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.sig-_").filter(|(a, b)| a == b);
        assert!(same.count() < token.len() / 2);
    }
}
