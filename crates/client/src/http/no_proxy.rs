//! Addresses that are reached without a proxy: this machine, and the entries of `no_proxy`.

use std::net::IpAddr;

use ureq::http::Uri;

/// Where a request goes, in the form that entries are compared with.
#[derive(Debug)]
pub(crate) struct Target {
    /// In lower case, without brackets and without a dot at its end.
    host: String,
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl Target {
    pub fn new(url: &Uri) -> Self {
        let host = url.host().unwrap_or_default().to_ascii_lowercase();
        let host = without_brackets(&host);
        let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
        let usual = match url.scheme_str() {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        };
        Target { ip: host.parse().ok(), host, port: url.port_u16().or(usual) }
    }

    /// Whether it is this machine by its name or address. 0.0.0.0 and :: count: they are where
    /// servers listen, and what they print on starting.
    pub fn is_this_machine(&self) -> bool {
        match self.ip.map(|ip| ip.to_canonical()) {
            Some(ip) => ip.is_loopback() || ip.is_unspecified(),
            None => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }

    /// The entry of a list that covers it. Beyond what curl knows there are `*.suffix`,
    /// `host:port`, `10.*`, and `*` among others; what is no entry covers nothing.
    pub fn entry_of<'a>(&self, list: &'a str) -> Option<&'a str> {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        entries.filter(|entry| !entry.is_empty()).find(|entry| self.is_covered_by(entry))
    }

    fn is_covered_by(&self, entry: &str) -> bool {
        let (pattern, port) = split_port(entry);
        if port.is_some_and(|port| port.parse().ok() != self.port) {
            return false;
        }
        let pattern = without_brackets(&pattern.to_ascii_lowercase());
        match self.ip {
            _ if pattern == "*" => true,
            Some(ip) => is_address_covered(ip, &pattern),
            None => is_name_covered(&self.host, &pattern),
        }
    }
}

fn without_brackets(host: &str) -> String {
    host.replace(['[', ']'], "")
}

/// IPv6 addresses hold colons too, and stand in brackets if there is a port.
fn split_port(entry: &str) -> (&str, Option<&str>) {
    let at = match entry.starts_with('[') {
        true => entry.find("]:").map(|bracket| bracket + 1),
        false => entry.find(':').filter(|colon| !entry[colon + 1..].contains(':')),
    };
    match at {
        Some(at) => (&entry[..at], Some(&entry[at + 1..])),
        None => (entry, None),
    }
}

fn is_name_covered(host: &str, pattern: &str) -> bool {
    let pattern = pattern.strip_suffix('.').unwrap_or(pattern);
    if let Some(domain) = pattern.strip_prefix("*.") {
        return is_within(host, domain);
    }
    let name = pattern.strip_prefix('.').unwrap_or(pattern);
    !name.is_empty() && (host == name || is_within(host, name))
}

fn is_within(host: &str, domain: &str) -> bool {
    !domain.is_empty() && host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn is_address_covered(ip: IpAddr, pattern: &str) -> bool {
    if let Some((network, bits)) = pattern.split_once('/') {
        let (Ok(network), Ok(bits)) = (network.parse(), bits.parse()) else { return false };
        return match (ip, network) {
            (IpAddr::V4(ip), IpAddr::V4(network)) => {
                share_prefix(u128::from(ip.to_bits()), u128::from(network.to_bits()), bits, 32)
            }
            (IpAddr::V6(ip), IpAddr::V6(network)) => {
                share_prefix(ip.to_bits(), network.to_bits(), bits, 128)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        };
    }
    match (ip, pattern.split_once(".*")) {
        // The old way to write a network: `10.*`, also as `10.*.*.*`.
        (IpAddr::V4(ip), Some((start, rest))) => {
            rest.replace(".*", "").is_empty() && ip.to_string().starts_with(&format!("{start}."))
        }
        _ => pattern.parse() == Ok(ip),
    }
}

/// Whether the first `bits` of two numbers of so many bits are the same.
fn share_prefix(a: u128, b: u128, bits: u32, width: u32) -> bool {
    bits <= width && (a ^ b).checked_shr(width - bits).unwrap_or_default() == 0
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn covers(list: &str, host: &str) -> bool {
        let url = format!("https://{host}/path").parse().unwrap();
        Target::new(&url).entry_of(list).is_some()
    }

    // What curl 7.88.1 does.
    #[test]
    fn entries_cover_what_they_cover_in_curl() {
        let cases = [
            ("*", "a.example", true),
            ("a.example", "a.example", true),
            ("a.example", "b.a.example", true),
            ("a.example", "ba.example", false),
            ("a.example", "a.example.com", false),
            (".a.example", "a.example", true),
            (".a.example", "b.a.example", true),
            ("x.example, a.example", "a.example", true),
            ("x.example a.example", "a.example", true),
            (" a.example ,", "a.example", true),
            ("A.Example", "a.example", true),
            ("a.example", "A.EXAMPLE", true),
            ("a.example.", "a.example", true),
            ("a.example", "a.example.", true),
            ("example", "a.example", true),
            ("internal", "api.internal", true),
            ("internal", "api.internal:8443", true),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("0.0.1", "10.0.0.1", false),
            ("192.168.0.0/23", "192.168.1.9", true),
            ("192.168.0.0/23", "192.168.2.9", false),
            ("fd00::1", "[fd00::1]", true),
            ("fd00::1", "[fd00::2]", false),
            ("", "a.example", false),
            (", ,", "a.example", false),
        ];
        for (list, host, expected) in cases {
            assert_eq!(covers(list, host), expected, "{list:?} {host}");
        }
    }

    #[test]
    fn entries_that_curl_does_not_know_cover_what_others_take_them_for() {
        let cases = [
            // As curl's documentation says; 7.88.1 gets it wrong.
            ("fd00::/8", "[fd12::1]", true),
            ("fe80::/10", "[febf::1]", true),
            ("fe80::/10", "[fec0::1]", false),
            ("[fd00::1]", "[fd00::1]", true),
            ("[fd00::1]:443", "[fd00::1]", true),
            ("[fd00::1]:444", "[fd00::1]", false),
            ("a.example:443", "a.example", true),
            ("a.example:443", "a.example:8443", false),
            (".example:8443", "a.example:8443", true),
            ("10.0.0.1:8000", "10.0.0.1:8000", true),
            ("*:8000", "a.example:8000", true),
            ("*:8000", "a.example", false),
            ("*.example", "a.example", true),
            ("*.example", "example", false),
            ("x,*", "a.example", true),
            ("10.*", "10.1.2.3", true),
            ("10.*", "100.1.2.3", false),
            ("10.*", "10.example", false),
            ("192.168.*.*", "192.168.3.4", true),
            ("192.168.*.*", "192.169.3.4", false),
            ("0.0.0.0/0", "10.0.0.1", true),
            ("0.0.0.0/0", "[fd00::1]", false),
            // Nothing that could be meant.
            ("10.0.0.0/33", "10.0.0.0", false),
            ("10.0.0.0/-1", "10.0.0.0", false),
            ("a.example/8", "a.example", false),
            ("https://a.example", "a.example", false),
            (". .. *. :443 [ []:443", "a.example", false),
        ];
        for (list, host, expected) in cases {
            assert_eq!(covers(list, host), expected, "{list:?} {host}");
        }
    }

    proptest! {
        #[test]
        fn a_network_covers_the_addresses_that_begin_with_its_bits(
            network: u32, flipped in 0u32..33, bits in 0u32..33,
        ) {
            // The two differ in one bit, counted from the first, or in none.
            let address = network ^ 1u32.checked_shl(31u32.wrapping_sub(flipped)).unwrap_or(0);
            let list = format!("{}/{bits}", Ipv4Addr::from(network));
            let host = Ipv4Addr::from(address).to_string();
            prop_assert_eq!(covers(&list, &host), flipped >= bits, "{} {}", list, host);
        }

        #[test]
        fn so_does_a_network_of_ipv6(network: u128, flipped in 0u32..129, bits in 0u32..129) {
            let address = network ^ 1u128.checked_shl(127u32.wrapping_sub(flipped)).unwrap_or(0);
            let list = format!("{}/{bits}", Ipv6Addr::from(network));
            let host = format!("[{}]", Ipv6Addr::from(address));
            prop_assert_eq!(covers(&list, &host), flipped >= bits, "{} {}", list, host);
        }

        #[test]
        fn a_domain_covers_itself_and_what_is_below_it(
            domain in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}", below in "[a-z]{1,5}", dot in "\\.?", noise in "[ -~]{0,12}",
        ) {
            let list = format!("{noise} {dot}{}", domain.to_ascii_uppercase());
            prop_assert!(covers(&list, &domain));
            let (child, neighbor) = (format!("{below}.{domain}."), format!("{below}{domain}"));
            prop_assert!(covers(&list, &child));
            let alone = format!("{dot}{domain}");
            prop_assert!(!covers(&alone, &neighbor));
        }
    }
}
