//! Compressed bodies (feature `zstd`), for servers that ask for them by
//! [`proto_compress_fwdbwd`](crate::ClientConfig::proto_compress_fwdbwd). They go with
//! `Content-Encoding: zstd`.

use std::io::Read;

use crate::{Error, Result};

/// Higher levels take twice the time and more, and gain nothing on token ids and floats.
const LEVEL: i32 = 1;

/// Largest window that a body may ask its reader to hold, as a power of two: 16 MiB, more than the
/// usual levels use.
const WINDOW_LOG: u32 = 24;

/// Compresses a body.
///
/// # Errors
/// [`Error::Zstd`] when memory runs out.
///
/// ```
/// use tinsmith_wire::zstd;
/// let body = vec![7; 100_000];
/// let small = zstd::compress(&body)?;
/// assert!(small.len() < 100);
/// assert_eq!(zstd::decompress(&small, 100_000)?, body);
/// assert!(zstd::decompress(&small, 99_999).is_err());
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
pub fn compress(body: &[u8]) -> Result<Vec<u8>> {
    ::zstd::bulk::compress(body, LEVEL).map_err(|error| Error::Zstd(error.to_string()))
}

/// Decompresses a body to at most `limit` bytes. Memory grows with what comes out, not with what
/// the body claims.
///
/// # Errors
/// [`Error::Zstd`] when it is not zstd, cut short, or larger than `limit`.
pub fn decompress(body: &[u8], limit: usize) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    let read = |plain: &mut Vec<u8>| {
        let mut decoder = ::zstd::Decoder::with_buffer(body)?;
        decoder.window_log_max(WINDOW_LOG)?;
        decoder.take((limit as u64).saturating_add(1)).read_to_end(plain)
    };
    match read(&mut plain) {
        Err(error) => Err(Error::Zstd(error.to_string())),
        Ok(n) if n > limit => Err(Error::Zstd(format!("it holds more than {limit} bytes"))),
        Ok(_) => Ok(plain),
    }
}
