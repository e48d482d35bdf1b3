//! Fetching files from where a server says that they are.

use std::{fmt, io};

use crate::{CallInfo, Error, Result, http::connection::Http};

impl Http {
    /// Writes what is at `url` to `to`. Nothing of this server's, the key above all, goes along.
    pub fn download(&self, url: &str, to: &mut impl io::Write) -> Result<u64> {
        let info = || Box::new(CallInfo::of("download"));
        let lost = |error: &dyn fmt::Display| Error::Unreachable {
            call: info(),
            reason: error.to_string(),
            maybe_received: true,
        };
        let proxy = self.route.proxy_to(url)?;
        let request = self.agent.get(url).config().proxy(proxy.for_ureq());
        let request = request.tls_config(self.route.tls_to(url)?).build();
        let told = |error| lost(&self.route.explain_through(&proxy, &error));
        let mut response = request.call().map_err(told)?;
        let status = response.status().as_u16();
        let mut body = response.body_mut().as_reader();
        if !(200..300).contains(&status) {
            let mut text = Vec::new();
            let read = io::Read::read_to_end(&mut io::Read::take(body, 1 << 16), &mut text);
            return Err(Error::Status {
                call: info(),
                status,
                message: read.map_or_else(|error| error.to_string(), |_| self.words(&text)),
            });
        }
        io::copy(&mut body, to).map_err(|error| lost(&error))
    }

    /// An address that may be relative to the server.
    pub fn absolute(&self, url: &str) -> String {
        match (url.starts_with('/'), self.base.split_once("://")) {
            (true, Some((scheme, rest))) => {
                let host = rest.split('/').next().unwrap_or_default();
                format!("{scheme}://{host}{url}")
            }
            _ => url.to_owned(),
        }
    }
}
