//! Fetching files from where a server says that they are.

use std::{
    io::{self, Read},
    time::Duration,
};

use crate::{
    CallInfo, Error, Result,
    http::{
        api::Api,
        connection::{Failure, Limits},
    },
};

/// The longest time that a download may take in all: it may be of any size.
const TOTAL: Duration = Duration::from_secs(24 * 3600);

struct FailedDownload {
    error: Error,
    may_pass: bool,
}

impl Api {
    /// Writes what is at `url` to `to`, as it is served. Nothing of this server's, the key above
    /// all, goes along. What fails before a byte was written is tried again, as any question.
    pub fn download(&self, url: &str, to: &mut impl io::Write) -> Result<u64> {
        let start = self.clock.now();
        let mut info = CallInfo { url: Some(url.to_owned()), ..CallInfo::of("download") };
        loop {
            info.attempts += 1;
            let failed = match self.download_once(url, to, &mut info) {
                Ok(written) => return Ok(written),
                Err(failed) => failed,
            };
            let wait = self.retry.delay(info.attempts, self.clock.random());
            if !failed.may_pass || self.since(start) + wait >= self.retry.submit_timeout {
                return Err(failed.error);
            }
            self.tell_retry(&info, failed.error.to_string(), wait);
            self.sleep(wait, &info)?;
        }
    }

    fn download_once(
        &self,
        url: &str,
        to: &mut impl io::Write,
        info: &mut CallInfo,
    ) -> Result<u64, Box<FailedDownload>> {
        let limits = Limits { total: TOTAL, silence: self.retry.attempt_timeout };
        let lost = |info: &CallInfo, failure: &Failure, written: u64| {
            let reason = failure.to_string();
            let call = Box::new(info.clone());
            let error = match failure {
                Failure::Cancelled => Error::Cancelled { call },
                _ => Error::Unreachable { call, reason, maybe_received: true },
            };
            Box::new(FailedDownload { error, may_pass: failure.may_pass() && written == 0 })
        };
        info.last_status = None;
        let response = self.connection.get(url, limits);
        let mut response = response.map_err(|failure| lost(info, &failure, 0))?;
        let status = response.status().as_u16();
        info.last_status = Some(status);
        let mut body = response.body_mut().as_reader();
        if !(200..300).contains(&status) {
            let mut text = Vec::new();
            let read = body.take(1 << 16).read_to_end(&mut text);
            let message = read.map_or_else(|error| error.to_string(), |_| self.words(&text));
            let error = Error::Status { call: Box::new(info.clone()), status, message };
            let may_pass = matches!(status, 408 | 425 | 429 | 500 | 502..);
            return Err(Box::new(FailedDownload { error, may_pass }));
        }
        let mut written = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => return Ok(written),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let failure = self.connection.failure(error.into());
                    return Err(lost(info, &failure, written));
                }
            };
            to.write_all(&buffer[..read]).map_err(|source| {
                let error = Error::Write { call: Box::new(info.clone()), source };
                Box::new(FailedDownload { error, may_pass: false })
            })?;
            written += read as u64;
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
