//! A server's address, checked before anything is sent there.

use std::net::IpAddr;

use ureq::http::Uri;

use crate::{Error, Result};

/// A base URL that can be one, without a slash at its end.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub base: String,
}

impl Address {
    /// Checks the URL, and that a key would not travel in the open.
    pub fn new(base: &str, has_key: bool, plain_http_allowed: bool) -> Result<Self> {
        let base = base.trim_end_matches('/');
        let is_loopback = is_loopback(&host(base)?);
        if !base.starts_with("https:") && has_key && !is_loopback && !plain_http_allowed {
            let reason = "the API key would travel unencrypted over plain http; use https, or allow_plain_http on the builder";
            return Err(bad("base URL", reason));
        }
        Ok(Address { base: base.to_owned() })
    }
}

fn bad(what: &'static str, reason: &str) -> Error {
    Error::Config { what, reason: reason.to_owned() }
}

fn host(base: &str) -> Result<String> {
    let uri: Uri = base.parse().map_err(|_| bad("base URL", "it is not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(bad("base URL", "it needs a scheme and a host, such as https://host/path"));
    };
    if !matches!(scheme, "https" | "http") {
        return Err(bad("base URL", "the scheme must be https or http"));
    }
    if authority.as_str().contains('@') {
        return Err(bad("base URL", "it holds a user name; give the key as API key"));
    }
    Ok(authority.host().to_owned())
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
