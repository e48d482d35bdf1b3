//! HTTP/1.1 messages as bytes, and what can be done to the connection that carries them.

use std::{
    collections::HashMap,
    io::{self, BufRead, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use socket2::SockRef;

use super::Reply;

/// The first line, the headers and the body.
pub type Message = (String, HashMap<String, String>, Vec<u8>);

/// What comes next; none at the end.
pub fn read_message(reader: &mut impl BufRead) -> io::Result<Option<Message>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(Ok(0), |length| length.parse());
    let mut body = vec![0; length.map_err(|_| io::ErrorKind::InvalidData)?];
    reader.read_exact(&mut body)?;
    Ok(Some((line.trim_end().to_owned(), headers, body)))
}

impl Reply {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [self.head().as_bytes(), &self.body].concat()
    }

    /// All that comes before the body.
    pub(super) fn head(&self) -> String {
        let (status, length) = (self.status, self.body.len());
        let mut head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n");
        if let Some(seconds) = self.retry_after {
            head += &format!("Retry-After: {seconds}\r\n");
        }
        if let Some(kind) = &self.content_type {
            head += &format!("Content-Type: {kind}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }
}

/// Ends the connection by a reset, once every handle of it is dropped.
pub fn reset(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Says that nothing more will come, and listens on until the other end has had enough too.
pub fn half_close(stream: &TcpStream, reader: &mut impl BufRead) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    io::copy(reader, &mut io::sink()).map(drop)
}

/// Writes in pieces that arrive one by one, with this pause between them.
pub fn drip(mut to: impl Write, bytes: &[u8], pause: Duration) -> io::Result<()> {
    const PIECES: usize = 16;
    for piece in bytes.chunks(bytes.len().div_ceil(PIECES).max(1)) {
        to.write_all(piece)?;
        match pause {
            Duration::ZERO => thread::yield_now(),
            pause => thread::sleep(pause),
        }
    }
    Ok(())
}
