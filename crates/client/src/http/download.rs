//! Fetching files from where a server says that they are.

use std::{
    fmt,
    io::{self, Read},
    time::Duration,
};

use crate::{
    CallInfo, Error, Result,
    http::{api::Api, connection::Limits},
};

/// The longest time that a download may take in all: it may be of any size.
const TOTAL: Duration = Duration::from_secs(24 * 3600);

impl Api {
    /// Writes what is at `url` to `to`, as it is served. Nothing of this server's, the key above
    /// all, goes along.
    pub fn download(&self, url: &str, to: &mut impl io::Write) -> Result<u64> {
        let info = || Box::new(CallInfo { attempts: 1, ..CallInfo::of("download") });
        let lost = |reason: &dyn fmt::Display| Error::Unreachable {
            call: info(),
            reason: reason.to_string(),
            maybe_received: true,
        };
        let limits = Limits { total: TOTAL, silence: self.retry.attempt_timeout };
        let mut response = self.connection.get(url, limits).map_err(|failure| lost(&failure))?;
        let status = response.status().as_u16();
        let mut body = response.body_mut().as_reader();
        if !(200..300).contains(&status) {
            let mut text = Vec::new();
            let read = body.take(1 << 16).read_to_end(&mut text);
            return Err(Error::Status {
                call: info(),
                status,
                message: read.map_or_else(|error| error.to_string(), |_| self.words(&text)),
            });
        }
        let mut total = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(lost(&self.connection.failure(error.into()))),
            };
            to.write_all(&buffer[..read])
                .map_err(|source| Error::Write { call: info(), source })?;
            total += read as u64;
        }
    }

    /// An address that may be relative to the server.
    pub fn absolute(&self, url: &str) -> String {
        match (url.starts_with('/'), self.connection.base.split_once("://")) {
            (true, Some((scheme, rest))) => {
                let host = rest.split('/').next().unwrap_or_default();
                format!("{scheme}://{host}{url}")
            }
            _ => url.to_owned(),
        }
    }
}
