//! Which proxy leads to an address. The environment is read as curl reads it.

use std::{ffi::OsString, fmt};

use ureq::http::{Uri, uri::Authority};

use crate::{Error, Result, http::no_proxy::Target};

/// What the builder was told. The address may hold a password, so this has no `Debug`.
#[derive(Clone, Default)]
pub(crate) struct ProxySettings {
    /// In place of the environment's; an empty one means none.
    pub url: Option<String>,
    /// In place of `no_proxy`.
    pub no_proxy: Option<String>,
}

/// Where a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A method of the builder.
    Builder(&'static str),
    /// A variable of the environment.
    Variable(&'static str),
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Origin::Builder(name) | Origin::Variable(name) => name,
        }
    }
}

/// How an address is reached, and why so.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    Direct(Why),
    Through(Proxy),
}

impl Choice {
    /// In the form of a setting of ureq.
    pub fn for_ureq(&self) -> Option<ureq::Proxy> {
        match self {
            Choice::Through(proxy) => Some(proxy.ureq.clone()),
            Choice::Direct(_) => None,
        }
    }
}

/// Why no proxy is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// The address is this machine's.
    Loopback,
    /// None is set for its scheme.
    NotSet,
    /// An entry of a list says so.
    Listed { entry: String, origin: Origin },
}

/// A proxy that can be used. It is shown without its user and password.
#[derive(Clone)]
pub(crate) struct Proxy {
    scheme: String,
    /// With its brackets if it is an IPv6 address.
    host: String,
    port: u16,
    origin: Origin,
    pub ureq: ureq::Proxy,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Proxy { scheme, host, port, origin, .. } = self;
        write!(f, "proxy {scheme}://{host}:{port} (from {})", origin.name())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Through(proxy) => proxy.fmt(f),
            Choice::Direct(Why::Loopback) => f.write_str("no proxy (the address is this machine)"),
            Choice::Direct(Why::NotSet) => f.write_str("no proxy (none is set)"),
            Choice::Direct(Why::Listed { entry, origin }) => {
                write!(f, "no proxy (`{entry}` of {})", origin.name())
            }
        }
    }
}

/// How to reach `url`. A variable that is empty counts as unset.
///
/// # Errors
/// [`Error::Config`] for a proxy that would be used and cannot be.
pub(crate) fn choose(
    url: &Uri,
    settings: &ProxySettings,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Choice> {
    let target = Target::new(url);
    if target.is_this_machine() {
        return Ok(Choice::Direct(Why::Loopback));
    }
    let first = |names: &[&'static str]| {
        let found = names.iter().find_map(|&name| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some((value, Origin::Variable(name)))
        });
        found.map(|(value, origin)| Ok((text(value, origin)?, origin))).transpose()
    };
    let proxy = match &settings.url {
        Some(url) => Some((url.clone(), Origin::Builder("ServiceClientBuilder::proxy"))),
        None => first(variables(url))?,
    };
    let Some((address, origin)) = proxy.filter(|(address, _)| !address.trim().is_empty()) else {
        return Ok(Choice::Direct(Why::NotSet));
    };
    let exceptions = match &settings.no_proxy {
        Some(list) => Some((list.clone(), Origin::Builder("ServiceClientBuilder::no_proxy"))),
        None => first(&["no_proxy", "NO_PROXY"])?,
    };
    if let Some((list, origin)) = exceptions
        && let Some(entry) = target.entry_of(&list)
    {
        return Ok(Choice::Direct(Why::Listed { entry: entry.to_owned(), origin }));
    }
    Proxy::new(&address, origin).map(Choice::Through)
}

/// From the specific to the general. `HTTP_PROXY` is left out, as in curl: a CGI program finds the
/// request's header `Proxy` there, which anyone can send.
fn variables(url: &Uri) -> &'static [&'static str] {
    match url.scheme_str() {
        Some("https") => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        _ => &["http_proxy", "all_proxy", "ALL_PROXY"],
    }
}

fn text(value: OsString, origin: Origin) -> Result<String> {
    value.into_string().map_err(|_| unusable(origin, "it is not Unicode"))
}

/// The value is not repeated, as it may hold a password.
fn unusable(origin: Origin, reason: impl Into<String>) -> Error {
    Error::Config { what: origin.name(), reason: reason.into() }
}

impl Proxy {
    fn new(address: &str, origin: Origin) -> Result<Self> {
        let bad = |reason: &str| unusable(origin, reason);
        let address = address.trim();
        let (scheme, rest) = address.split_once("://").unwrap_or(("http", address));
        let scheme = match scheme.to_ascii_lowercase() {
            socks if socks == "socks" => "socks4".to_owned(),
            other => other,
        };
        let default_port = match &*scheme {
            "https" => 443,
            "http" | "socks4" | "socks4a" | "socks5" | "socks5h" => 1080,
            _ => return Err(bad(&scheme_problem(&scheme))),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains('@') {
            return Err(bad(LOGIN));
        }
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        check_login(&scheme, login).map_err(bad)?;
        let (host, port) = host_and_port(place).ok_or_else(|| bad(PLACE))?;
        let port = port.unwrap_or(default_port);
        let login = login.map(|login| format!("{login}@")).unwrap_or_default();
        let ureq = ureq::Proxy::new(&format!("{scheme}://{login}{host}:{port}"));
        let ureq = ureq.map_err(|_| bad(LOGIN))?;
        Ok(Proxy { scheme, host, port, origin, ureq })
    }

    /// Whether the way to the proxy itself is encrypted.
    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// What the proxy said instead of opening the way, if that is what went wrong.
    pub fn refusal(&self, error: &ureq::Error) -> Option<String> {
        let ureq::Error::ConnectProxyFailed(reason) = error else { return None };
        let advice = if reason.contains("407") {
            match self.ureq.username() {
                Some(_) => "it does not accept the user and password in its address",
                None => "it wants a user and a password: http://user:password@host:port",
            }
        } else if reason.contains("403") || reason.contains("405") {
            "it does not connect to this host or port; many proxies allow port 443 only"
        } else {
            "it could not reach the server, or is no proxy"
        };
        Some(format!("the {self} refused: {reason}: {advice}"))
    }
}

const PLACE: &str = "what follows `://` must be host:port or user:password@host:port";
const LOGIN: &str = "what is special in the user or the password must be percent-encoded, `@` as %40 and `/` as %2F for example";

fn scheme_problem(scheme: &str) -> String {
    let known = "http, https, socks4, socks4a, socks5 or socks5h";
    match scheme.len() <= 16 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        true => format!("the scheme of a proxy must be {known}, and {scheme} is not"),
        false => format!("the scheme of a proxy must be {known}"),
    }
}

fn check_login(scheme: &str, login: Option<&str>) -> std::result::Result<(), &'static str> {
    let Some(login) = login else { return Ok(()) };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    match scheme {
        "socks4" | "socks4a" => Err("SOCKS 4 knows no user and password; socks5 does"),
        "socks5" | "socks5h" if user.is_empty() || password.is_empty() => {
            Err("SOCKS 5 needs both a user and a password, or none of them")
        }
        _ => Ok(()),
    }
}

fn host_and_port(place: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = place.parse().ok()?;
    let host = authority.host();
    if host.is_empty() {
        return None;
    }
    let port = match place.strip_prefix(host)? {
        "" => None,
        rest => Some(rest.strip_prefix(':')?.parse().ok().filter(|&port| port != 0)?),
    };
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of `url`, in an environment written as `name=value` separated by `;`.
    fn chosen(url: &str, environment: &str) -> Result<Choice> {
        with(&ProxySettings::default(), url, environment)
    }

    fn with(settings: &ProxySettings, url: &str, environment: &str) -> Result<Choice> {
        let variable = |name: &str| {
            let set = environment.split(';').filter_map(|pair| pair.split_once('='));
            set.filter(|(set, _)| *set == name).map(|(_, value)| value.into()).next()
        };
        choose(&url.parse().unwrap(), settings, variable)
    }

    /// The port of the proxy that is used.
    fn port(url: &str, environment: &str) -> Option<u16> {
        match chosen(url, environment).unwrap() {
            Choice::Through(proxy) => Some(proxy.ureq.port()),
            Choice::Direct(_) => None,
        }
    }

    // What curl 7.88.1 does.
    #[test]
    fn variables_are_read_from_the_specific_to_the_general_and_lower_case_first() {
        let cases = [
            ("https", "HTTPS_PROXY=http://p:2", Some(2)),
            ("https", "https_proxy=http://p:2", Some(2)),
            ("http", "HTTP_PROXY=http://p:2", None),
            ("http", "http_proxy=http://p:2", Some(2)),
            ("https", "http_proxy=http://p:2", None),
            ("http", "HTTPS_PROXY=http://p:2", None),
            ("http", "all_proxy=http://p:2", Some(2)),
            ("https", "ALL_PROXY=http://p:2", Some(2)),
            ("https", "ALL_PROXY=http://p:3;HTTPS_PROXY=http://p:2", Some(2)),
            ("https", "https_proxy=http://p:2;HTTPS_PROXY=http://p:3", Some(2)),
            ("https", "all_proxy=http://p:3;HTTPS_PROXY=http://p:2", Some(2)),
            ("https", "https_proxy=;HTTPS_PROXY=http://p:2", Some(2)),
            ("https", "all_proxy=http://p:2;ALL_PROXY=http://p:3", Some(2)),
            ("https", "HTTPS_PROXY=p:2", Some(2)),
            ("https", "HTTPS_PROXY=http://p", Some(1080)),
            ("https", "HTTPS_PROXY=https://p", Some(443)),
            ("https", "HTTPS_PROXY=socks5h://p", Some(1080)),
            ("https", "HTTPS_PROXY=http://p:2;no_proxy=other;NO_PROXY=a.example", Some(2)),
            ("https", "HTTPS_PROXY=http://p:2;NO_PROXY=a.example", None),
            ("https", "", None),
        ];
        for (scheme, environment, expected) in cases {
            let found = port(&format!("{scheme}://a.example/path"), environment);
            assert_eq!(found, expected, "{scheme} {environment}");
        }
    }

    #[test]
    fn this_machine_is_never_reached_through_a_proxy() {
        let hosts = "localhost LocalHost localhost. api.localhost 127.0.0.1 127.9.8.7 [::1] 0.0.0.0 [::] \
                     [::ffff:127.0.0.1]";
        for host in hosts.split_whitespace() {
            let url = format!("http://{host}:8000");
            assert_eq!(port(&url, "all_proxy=http://p:2"), None, "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "[::2]", "0.0.0.1", "mylocalhost"] {
            assert_eq!(port(&format!("http://{host}"), "all_proxy=http://p:2"), Some(2), "{host}");
        }
    }

    #[test]
    fn the_builder_comes_before_the_environment() {
        let environment = "HTTPS_PROXY=http://p:2;no_proxy=a.example";
        let shown = |url: Option<&str>, no_proxy: Option<&str>| {
            let settings = ProxySettings {
                url: url.map(str::to_owned),
                no_proxy: no_proxy.map(str::to_owned),
            };
            with(&settings, "https://a.example", environment).unwrap().to_string()
        };
        assert_eq!(shown(None, None), "no proxy (`a.example` of no_proxy)");
        // As for curl's option --proxy.
        assert_eq!(shown(Some("http://q:3"), None), "no proxy (`a.example` of no_proxy)");
        assert_eq!(
            shown(Some("http://q:3"), Some("")),
            "proxy http://q:3 (from ServiceClientBuilder::proxy)"
        );
        assert_eq!(shown(None, Some("b.example")), "proxy http://p:2 (from HTTPS_PROXY)");
        assert_eq!(shown(Some(""), Some("")), "no proxy (none is set)");
        assert_eq!(shown(None, Some("*")), "no proxy (`*` of ServiceClientBuilder::no_proxy)");
    }

    #[test]
    fn user_and_password_are_decoded_and_not_shown() {
        let choice =
            chosen("https://a.example", "https_proxy=http://me%40x:s%3Acret:1@[fd00::1]:8080/");
        let Choice::Through(proxy) = choice.unwrap() else { panic!("a proxy is set") };
        assert_eq!(proxy.ureq.username(), Some("me@x"));
        assert_eq!(proxy.ureq.password(), Some("s:cret:1"));
        assert_eq!(format!("{proxy}"), "proxy http://[fd00::1]:8080 (from https_proxy)");
        assert_eq!(format!("{proxy:?}"), format!("{proxy}"));
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_told_by_its_variable() {
        let cases = [
            (
                "ftp://p:1",
                "must be http, https, socks4, socks4a, socks5 or socks5h, and ftp is not",
            ),
            ("http://p:port", "must be host:port"),
            ("http://p:0", "must be host:port"),
            ("http://p:65536", "must be host:port"),
            ("http://", "must be host:port"),
            ("http://a b:1", "must be host:port"),
            ("http://me:sec/ret@p:1", "must be percent-encoded"),
            ("http://me:sec\"ret@p:1", "must be percent-encoded"),
            ("http://me:%ff@p:1", "must be percent-encoded"),
            ("socks4://me:secret@p:1", "SOCKS 4 knows no user"),
            ("socks5://me@p:1", "SOCKS 5 needs both"),
        ];
        for (value, expected) in cases {
            let error = chosen("https://a.example", &format!("ALL_PROXY={value}")).unwrap_err();
            let error = error.to_string();
            assert!(
                error.starts_with("ALL_PROXY: ") && error.contains(expected),
                "{value}: {error}"
            );
            assert!(!error.contains("sec"), "{value}: {error}");
        }
        // What is not used is not looked at.
        assert_eq!(port("https://a.example", "ALL_PROXY=ftp://p;https_proxy=http://p:2"), Some(2));
        assert_eq!(port("https://a.example", "ALL_PROXY=ftp://p;NO_PROXY=example"), None);
    }

    #[test]
    fn a_refusal_says_who_refused_and_what_to_do() {
        let choice = chosen("https://a.example", "https_proxy=http://me:secret@p:2").unwrap();
        let Choice::Through(proxy) = choice else { panic!("a proxy is set") };
        let refusal = |reason: &str| {
            let error = ureq::Error::ConnectProxyFailed(reason.into());
            proxy.refusal(&error).unwrap()
        };
        let refused = "the proxy http://p:2 (from https_proxy) refused: ";
        assert_eq!(
            refusal("proxy server responded 407/407"),
            format!(
                "{refused}proxy server responded 407/407: it does not accept the user and password in its address"
            )
        );
        assert!(refusal("proxy server responded 403/403").contains("port 443 only"));
        assert!(proxy.refusal(&ureq::Error::HostNotFound).is_none());
    }

    proptest! {
        #[test]
        fn no_text_holds_the_password_and_nothing_panics(
            scheme in "(http|https|socks5|ftp|[a-z:/]{0,4})(://)?",
            password in "[q-z/@:%#?\\[]{1,3}7531[!-~]{0,3}",
            place in "[p-z.:0-2/@\\[]{0,8}",
        ) {
            let value = format!("{scheme}user:{password}@{place}");
            let settings = ProxySettings { url: Some(value.clone()), no_proxy: Some(String::new()) };
            let text = match with(&settings, "https://a.example", "") {
                Ok(choice) => format!("{choice} {choice:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            prop_assert!(!text.contains("7531"), "{}: {}", value, text);
        }
    }
}
