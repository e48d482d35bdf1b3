//! Which certificate authorities are trusted, and what is wrong with a server's certificate.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{Duration, UNIX_EPOCH},
};

use rustls::{CertificateError, InvalidMessage, RootCertStore, pki_types::CertificateDer};
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use crate::{Error, Result};

/// Certificates in PEM, given to the builder.
#[derive(Debug, Clone)]
pub(crate) enum RootSource {
    Pem(Vec<u8>),
    File(PathBuf),
}

/// The authorities that are trusted.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    pub ureq: RootCerts,
    /// In words, for errors.
    origin: String,
}

impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

impl Roots {
    /// Those that were given, and no others; else, as in OpenSSL and curl, those of the system,
    /// with `SSL_CERT_FILE` in place of its file and `SSL_CERT_DIR` in place of its folders.
    ///
    /// # Errors
    /// [`Error::Config`] for certificates that cannot be read.
    pub fn new(given: &[RootSource], variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        match (given, set("SSL_CERT_FILE"), set("SSL_CERT_DIR")) {
            ([], None, None) => Ok(SYSTEM.clone()),
            ([], file, folders) => Self::of_environment(file.map(PathBuf::from), folders),
            (given, ..) => Self::of_builder(given),
        }
    }

    fn of_builder(given: &[RootSource]) -> Result<Self> {
        let mut all = Vec::new();
        let mut names = Vec::new();
        for source in given {
            let (setting, name, read) = match source {
                RootSource::Pem(pem) => (
                    "ServiceClientBuilder::root_certificates",
                    "the given PEM".to_owned(),
                    certificates(pem),
                ),
                RootSource::File(path) => (
                    "ServiceClientBuilder::root_certificates_file",
                    path.display().to_string(),
                    read(path),
                ),
            };
            all.extend(read.map_err(|problem| bad(setting, &name, &problem))?);
            names.push(name);
        }
        Ok(Roots::trusting(all, names.join(" and ")))
    }

    fn of_environment(file: Option<PathBuf>, folders: Option<OsString>) -> Result<Self> {
        let system = openssl_probe::probe();
        let mut names = Vec::new();
        let mut all = match &file {
            Some(path) => {
                let name = path.display().to_string();
                names.push(format!("{name} (from SSL_CERT_FILE)"));
                read(path).map_err(|problem| bad("SSL_CERT_FILE", &name, &problem))?
            }
            None => certificates_of(system.cert_file.as_deref(), &[]),
        };
        let folders_set = folders.as_ref().map(|folders| env::split_paths(folders).collect());
        let is_whole = file.is_some() && folders_set.is_some();
        all.extend(certificates_of(None, &folders_set.unwrap_or(system.cert_dir)));
        if let Some(folders) = &folders {
            names.push(format!("{} (from SSL_CERT_DIR)", folders.display()));
        }
        if all.is_empty() {
            let name = folders.unwrap_or_default().display().to_string();
            let problem = "no certificate in PEM could be read there";
            return Err(bad("SSL_CERT_DIR", &name, problem));
        }
        if !is_whole {
            names.push("the system's".to_owned());
        }
        Ok(Roots::trusting(all, names.join(" and ")))
    }

    fn trusting(certificates: Vec<CertificateDer<'static>>, origin: String) -> Self {
        let owned = certificates.iter().map(|der| Certificate::from_der(der).to_owned());
        Roots { ureq: RootCerts::Specific(Arc::new(owned.collect())), origin }
    }

    /// What went wrong with TLS and what to do about it, if TLS is at fault.
    pub fn explain(&self, error: &ureq::Error) -> Option<String> {
        let error = match error {
            ureq::Error::Rustls(error) => error,
            ureq::Error::Io(error) => error.get_ref()?.downcast_ref()?,
            _ => return None,
        };
        Some(match error {
            rustls::Error::InvalidCertificate(fault) => self.explain_certificate(fault),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                "the server does not speak TLS on this port: use http:// if it is to be reached \
                 in the open, or its port for https"
                    .to_owned()
            }
            rustls::Error::AlertReceived(alert) => {
                format!("the server broke off the TLS handshake: {alert:?}")
            }
            other => format!("TLS: {other}"),
        })
    }

    fn explain_certificate(&self, fault: &CertificateError) -> String {
        let date =
            |seconds: u64| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        match fault {
            CertificateError::UnknownIssuer => format!(
                "the server's certificate was issued by none of the certificate authorities that \
                 are trusted here ({self}); if it is a private one, name its PEM file in \
                 SSL_CERT_FILE or in ServiceClientBuilder::root_certificates_file"
            ),
            CertificateError::BadSignature => format!(
                "the server's certificate was issued with another key than that of the trusted \
                 authority ({self}) with its name: has it been renewed? Its PEM file has to be the \
                 current one"
            ),
            CertificateError::ExpiredContext { not_after, .. } => format!(
                "the server's certificate expired on {}; it has to be renewed, unless this \
                 machine's clock is wrong",
                date(not_after.as_secs())
            ),
            CertificateError::NotValidYetContext { not_before, .. } => format!(
                "the server's certificate is not valid before {}; is this machine's clock wrong?",
                date(not_before.as_secs())
            ),
            CertificateError::NotValidForNameContext { expected, presented } => format!(
                "the server's certificate is not for {}, but for {}; use that name in the address",
                expected.to_str(),
                names(presented)
            ),
            // `openssl req -x509` makes such certificates unless told otherwise.
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                "the server's certificate is that of an authority (CA:TRUE), which is not accepted \
                 as a server's: make one with `-addext basicConstraints=critical,CA:FALSE`"
                    .to_owned()
            }
            other => format!("the server's certificate cannot be trusted: {other}"),
        }
    }
}

/// What the system trusts, read once. A system without a store, such as a small container, trusts
/// what Mozilla does.
static SYSTEM: LazyLock<Roots> = LazyLock::new(|| {
    let mut found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        // That crate takes an empty SSL_CERT_FILE for the name of a file.
        let system = openssl_probe::probe();
        found = certificates_of(system.cert_file.as_deref(), &system.cert_dir);
    }
    match RootCertStore::empty().add_parsable_certificates(found.iter().cloned()) {
        (0, _) => {
            Roots { ureq: RootCerts::WebPki, origin: "Mozilla's; this system has none".into() }
        }
        _ => Roots::trusting(found, "the system's".into()),
    }
});

fn bad(setting: &'static str, name: &str, problem: &str) -> Error {
    Error::Config { what: setting, reason: format!("{name}: {problem}") }
}

/// Those that can be read; what cannot is passed over, as in OpenSSL.
fn certificates_of(file: Option<&Path>, folders: &[PathBuf]) -> Vec<CertificateDer<'static>> {
    let of = |file, folder| rustls_native_certs::load_certs_from_paths(file, folder).certs;
    let of_folders = folders.iter().flat_map(|folder| of(None, Some(folder)));
    of(file, None).into_iter().chain(of_folders).collect()
}

fn read(path: &Path) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    certificates(&fs::read(path).map_err(|error| error.to_string())?)
}

/// The certificates in a PEM text, of which at least one must be fit to be trusted; systems'
/// bundles have some that are not.
fn certificates(pem: &[u8]) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| "damaged PEM")? {
            found.push(CertificateDer::from(certificate.der().to_vec()));
        }
    }
    if found.is_empty() {
        return Err("no certificate in PEM (`-----BEGIN CERTIFICATE-----`) is in it".to_owned());
    }
    let mut store = RootCertStore::empty();
    let faults = found.iter().filter_map(|der| store.add(der.clone()).err()).collect::<Vec<_>>();
    match (store.is_empty(), faults.first()) {
        (true, Some(fault)) => Err(format!("no certificate in it can be used: {fault}")),
        _ => Ok(found),
    }
}

/// Of a certificate, from forms such as `DnsName("example.com")`.
fn names(presented: &[String]) -> String {
    let bare = presented.iter().map(|name| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"')
    });
    match presented {
        [] => "no name at all".to_owned(),
        _ => bare.collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pem() -> String {
        let key = KeyPair::generate().unwrap();
        CertificateParams::default().self_signed(&key).unwrap().pem()
    }

    fn count(roots: &Roots) -> usize {
        match &roots.ureq {
            RootCerts::Specific(certificates) => certificates.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_that_hold_no_certificate_are_named_with_their_setting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let begin = "-----BEGIN CERTIFICATE-----";
        let end = "-----END CERTIFICATE-----";
        let cases = [
            ("", "no certificate in PEM"),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "no certificate in PEM",
            ),
            (&format!("{begin}\n!!!!\n{end}\n"), "damaged PEM"),
            (&format!("{begin}\nAAAA\n"), "damaged PEM"),
            (&format!("{begin}\nAAAA\n{end}\n"), "no certificate in it can be used: "),
        ];
        for (text, expected) in cases {
            fs::write(&path, text).unwrap();
            let variable = |name: &str| (name == "SSL_CERT_FILE").then(|| path.clone().into());
            let by_variable = Roots::new(&[], variable).unwrap_err().to_string();
            let begin = format!("SSL_CERT_FILE: {}: {expected}", path.display());
            assert!(by_variable.starts_with(&begin), "{by_variable}");
            let by_builder = Roots::new(&[RootSource::File(path.clone())], |_| None).unwrap_err();
            let begin = format!(
                "ServiceClientBuilder::root_certificates_file: {}: {expected}",
                path.display()
            );
            assert!(by_builder.to_string().starts_with(&begin), "{by_builder}");
        }
    }

    #[test]
    fn what_is_given_stands_alone_and_a_variable_replaces_its_half_of_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("ca.pem"), dir.path().join("more"));
        fs::write(&file, pem() + &pem()).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("0123abcd.0"), pem()).unwrap();
        let folders = env::join_paths([folder.clone(), dir.path().join("none")]).unwrap();
        let both = |name: &str| match name {
            "SSL_CERT_FILE" => Some(file.clone().into()),
            "SSL_CERT_DIR" => Some(folders.clone()),
            _ => None,
        };
        let roots = Roots::new(&[], both).unwrap();
        assert_eq!(count(&roots), 3);
        let shown = roots.to_string();
        assert!(shown.contains("ca.pem (from SSL_CERT_FILE) and "), "{shown}");
        assert!(!shown.contains("the system's"), "{shown}");

        let one = Roots::new(&[], |name| both(name).filter(|_| name == "SSL_CERT_FILE")).unwrap();
        assert!(one.to_string().ends_with("ca.pem (from SSL_CERT_FILE) and the system's"), "{one}");
        let given = [RootSource::Pem(pem().into_bytes()), RootSource::File(file.clone())];
        let roots = Roots::new(&given, both).unwrap();
        assert_eq!(count(&roots), 3);
        assert_eq!(roots.to_string(), format!("the given PEM and {}", file.display()));
    }
}
