//! The way to a server: through which proxy, and by whose word it is the server.

use std::{ffi::OsString, sync::OnceLock};

use ureq::{http::Uri, tls::TlsConfig};

use crate::{
    Result,
    http::proxy::{Choice, ProxySettings, choose},
    http::tls::{RootSource, Roots},
};

/// What the builder was told of the network.
#[derive(Clone, Default)]
pub(crate) struct NetworkSettings {
    pub proxy: ProxySettings,
    pub roots: Vec<RootSource>,
}

/// How variables of the environment are looked up.
pub(crate) type Lookup = fn(&str) -> Option<OsString>;

pub(crate) struct Route {
    settings: NetworkSettings,
    variable: Lookup,
    proxy: Choice,
    roots: OnceLock<Roots>,
}

impl Route {
    /// Checks all that is needed to reach a base URL.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config).
    pub fn new(base: &str, settings: NetworkSettings, variable: Lookup) -> Result<Self> {
        let url: Uri = base.parse().unwrap_or_default();
        let proxy = choose(&url, &settings.proxy, variable)?;
        log::debug!("{base}: {proxy}");
        let route = Route { settings, variable, proxy, roots: OnceLock::new() };
        let has_tls = url.scheme_str() == Some("https")
            || matches!(&route.proxy, Choice::Through(proxy) if proxy.is_https());
        if has_tls {
            route.roots()?;
        }
        Ok(route)
    }

    /// Only read where there is TLS, so that a bad variable is no hindrance elsewhere.
    fn roots(&self) -> Result<&Roots> {
        if let Some(roots) = self.roots.get() {
            return Ok(roots);
        }
        let roots = Roots::new(&self.settings.roots, self.variable)?;
        Ok(self.roots.get_or_init(|| roots))
    }

    /// The proxy to the base URL.
    pub fn proxy(&self) -> &Choice {
        &self.proxy
    }

    /// The proxy to any other address.
    pub fn proxy_to(&self, url: &str) -> Result<Choice> {
        choose(&url.parse().unwrap_or_default(), &self.settings.proxy, self.variable)
    }

    /// For the base URL.
    pub fn tls(&self) -> TlsConfig {
        tls(self.roots.get())
    }

    /// For any other address.
    pub fn tls_to(&self, url: &str) -> Result<TlsConfig> {
        let needed = url.starts_with("https:").then(|| self.roots()).transpose()?;
        Ok(tls(needed.or(self.roots.get())))
    }

    /// What went wrong on the way through `proxy`, in words that say what to do where that is
    /// known.
    pub fn explain(&self, proxy: &Choice, error: &ureq::Error) -> String {
        let of_proxy = match proxy {
            Choice::Through(proxy) => proxy.refusal(error),
            Choice::Direct(_) => None,
        };
        let of_tls = || self.roots.get()?.explain(error);
        of_proxy.or_else(of_tls).unwrap_or_else(|| match proxy {
            Choice::Through(_) => format!("{error}, through {proxy}"),
            Choice::Direct(_) => error.to_string(),
        })
    }
}

fn tls(roots: Option<&Roots>) -> TlsConfig {
    let builder = TlsConfig::builder();
    match roots {
        Some(roots) => builder.root_certs(roots.ureq.clone()).build(),
        None => builder.build(),
    }
}
