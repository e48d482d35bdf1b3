//! Servers of `https` whose certificates are good, or have one fault each. All are made here.

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    sync::Arc,
    thread,
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer};
use support::{Fake, TestClock};
use tinsmith_client::{Error, RetryConfig, ServiceClient, ServiceClientBuilder};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server under 127.0.0.1 whose certificate is for `name`, besides what `change` does to it.
fn serve(issuer: &Authority, name: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    serve_as(&params.signed_by(&key, issuer).unwrap(), &key)
}

fn serve_as(certificate: &Certificate, key: &KeyPair) -> String {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // A client that does not believe the certificate hangs up.
            if stream.read(&mut [0; 4096]).is_ok() {
                let body = r#"{"sessions":["seen"]}"#;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all((head + body).as_bytes()).unwrap();
            }
        }
    });
    url
}

fn client(url: &str) -> ServiceClientBuilder {
    let retry = RetryConfig::default().submit_attempts(2);
    ServiceClient::builder().base_url(url).clock(TestClock::default()).retry(retry)
}

fn sessions(builder: ServiceClientBuilder) -> Result<Vec<String>, Error> {
    builder.rest()?.sessions()
}

fn failure(builder: ServiceClientBuilder) -> String {
    sessions(builder).unwrap_err().to_string()
}

#[test]
fn a_private_authority_is_trusted_once_the_builder_names_it() {
    let (ours, other, older) = (authority("ours"), authority("other"), authority("ours"));
    let url = serve(&ours, "127.0.0.1", |_| {});
    let fault = "the server's certificate was issued by none of the certificate authorities that are trusted here";
    let untrusted = failure(client(&url));
    assert!(untrusted.contains(fault), "{untrusted}");
    assert!(untrusted.contains("name its PEM file in SSL_CERT_FILE"), "{untrusted}");
    let wrong = failure(client(&url).root_certificates(other.pem()));
    assert!(wrong.contains(&format!("{fault} (the given PEM)")), "{wrong}");
    let renewed = failure(client(&url).root_certificates(older.pem()));
    assert!(renewed.contains("(the given PEM) with its name: has it been renewed?"), "{renewed}");

    assert_eq!(sessions(client(&url).root_certificates(ours.pem())).unwrap(), ["seen"]);
    let both = client(&url).root_certificates(other.pem()).root_certificates(ours.pem());
    assert_eq!(sessions(both).unwrap(), ["seen"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, ours.pem()).unwrap();
    assert_eq!(sessions(client(&url).root_certificates_file(file)).unwrap(), ["seen"]);
}

/// Its second half runs in a process of its own, whose environment it can choose.
#[test]
fn a_private_authority_is_trusted_once_the_environment_names_it() {
    const URL: &str = "TINSMITH_TEST_TLS_URL";
    if let Ok(url) = std::env::var(URL) {
        println!("answered: {:?}", sessions(client(&url)).map_err(|error| error.to_string()));
        return;
    }
    let ours = authority("ours");
    let url = serve(&ours, "127.0.0.1", |_| {});
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), ours.pem()).unwrap();
    let answer = |variable: &str, path: &str| {
        let name = "a_private_authority_is_trusted_once_the_environment_names_it";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([name, "--exact", "--nocapture"]).env(URL, &url);
        child.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        let output = child.env(variable, dir.path().join(path)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for (variable, path) in [("SSL_CERT_FILE", "ca.pem"), ("SSL_CERT_DIR", ".")] {
        let text = answer(variable, path);
        assert!(text.contains(r#"answered: Ok(["seen"])"#), "{text}");
    }
    let missing = answer("SSL_CERT_FILE", "none.pem");
    assert!(missing.contains("answered: Err(\"SSL_CERT_FILE: "), "{missing}");
    assert!(missing.contains("none.pem: "), "{missing}");
}

#[test]
fn each_fault_of_a_certificate_has_its_own_words() {
    let ours = authority("ours");
    let told = |name: &str, change: fn(&mut CertificateParams)| {
        let url = serve(&ours, name, change);
        failure(client(&url).root_certificates(ours.pem()))
    };
    let expired = told("127.0.0.1", |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 2, 3);
    });
    let words = "the server's certificate expired on Sun, 03 Feb 2002 00:00:00 GMT";
    assert!(expired.contains(words), "{expired}");
    let early = told("127.0.0.1", |params| {
        params.not_before = date_time_ymd(2999, 1, 1);
        params.not_after = date_time_ymd(2999, 2, 1);
    });
    assert!(early.contains("is not valid before Tue, 01 Jan 2999 00:00:00 GMT"), "{early}");
    let elsewhere = told("trainer.example", |_| {});
    let words = "the server's certificate is not for 127.0.0.1, but for trainer.example";
    assert!(elsewhere.contains(words), "{elsewhere}");
    let of_authority = told("127.0.0.1", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    assert!(of_authority.contains("is that of an authority (CA:TRUE)"), "{of_authority}");
}

#[test]
fn a_certificate_that_signed_itself_is_trusted_by_its_own_file_unless_it_is_an_authoritys() {
    let answer = |is_ca: IsCa| {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let url = serve_as(&certificate, &key);
        sessions(client(&url).root_certificates(certificate.pem()))
    };
    assert_eq!(answer(IsCa::ExplicitNoCa).unwrap(), ["seen"]);
    let refused = answer(IsCa::Ca(BasicConstraints::Unconstrained)).unwrap_err().to_string();
    assert!(refused.contains("is that of an authority (CA:TRUE)"), "{refused}");
}

#[test]
fn https_to_a_port_of_plain_http_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    // What web servers say to a request that they cannot read.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let plain = failure(client(&url));
    assert!(plain.contains("the server does not speak TLS on this port: use http://"), "{plain}");
}

#[test]
fn a_bad_certificate_file_is_told_before_anything_is_sent() {
    let fake = Fake::start();
    let url = fake.url.replace("http:", "https:");
    let error = sessions(client(&url).root_certificates("nonsense")).unwrap_err();
    assert!(
        matches!(&error, Error::Config { what: "ServiceClientBuilder::root_certificates", .. }),
        "{error}"
    );
    // Where there is no TLS nobody needs it.
    assert!(client(&fake.url).root_certificates_file("none.pem").connect().is_ok());
}
