//! Servers behind proxies, each a real one on the loopback.

mod support;

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::mpsc::{Receiver, channel},
    thread,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use support::{Fake, TestClock};
use tinsmith_client::{Error, RetryConfig, ServiceClient, ServiceClientBuilder};

/// A name that only a proxy could know.
const NAME: &str = "http://trainer.example:8000";

/// Opens one connection after another for its clients, all of them to the same place, and tells
/// what it was asked.
fn proxy<F>(open: F) -> (SocketAddr, Receiver<String>)
where
    F: Fn(&mut TcpStream) -> io::Result<(String, Option<TcpStream>)> + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    let open = std::sync::Arc::new(open);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (open, tell) = (open.clone(), tell.clone());
            thread::spawn(move || {
                let mut client = client?;
                let (asked, server) = open(&mut client)?;
                let _ = tell.send(asked);
                let Some(mut server) = server else { return Ok(()) };
                let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
                thread::spawn(move || io::copy(&mut from_client, &mut to_server));
                io::copy(&mut server, &mut client).map(drop)
            });
        }
    });
    (address, told)
}

/// The head of a request, without its last line.
fn head(client: &mut TcpStream) -> io::Result<String> {
    // A client says no more until it is answered, so nothing is lost in the buffer.
    let lines = BufReader::new(client.try_clone()?).lines();
    let lines = lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()));
    Ok(lines.collect::<io::Result<Vec<_>>>()?.join("\n"))
}

fn http_proxy(to: &Fake) -> (SocketAddr, Receiver<String>) {
    let to = to.url.trim_start_matches("http://").to_owned();
    proxy(move |client| {
        let asked = head(client)?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        Ok((asked, Some(TcpStream::connect(&to)?)))
    })
}

fn refusing_proxy(status: &'static str) -> (SocketAddr, Receiver<String>) {
    proxy(move |client| {
        let asked = head(client)?;
        client.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
        Ok((asked, None))
    })
}

/// SOCKS 5 (RFC 1928) with a user and a password (RFC 1929).
fn socks_proxy(to: &Fake) -> (SocketAddr, Receiver<String>) {
    let to = to.url.trim_start_matches("http://").to_owned();
    proxy(move |client| {
        let read = |mut client: &TcpStream, n: u8| {
            let mut bytes = vec![0; n.into()];
            client.read_exact(&mut bytes).map(|()| bytes)
        };
        let text = |client: &TcpStream| {
            let length = read(client, 1)?[0];
            Ok::<_, io::Error>(String::from_utf8(read(client, length)?).unwrap())
        };
        let methods = read(client, 2)?[1];
        read(client, methods)?;
        client.write_all(&[5, 2])?;
        read(client, 1)?;
        let (user, password) = (text(client)?, text(client)?);
        client.write_all(&[1, 0])?;
        assert_eq!(read(client, 4)?, [5, 1, 0, 3], "connect to a name");
        let name = text(client)?;
        let port = read(client, 2)?;
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        let asked = format!("{user} {password} {name} {}", u16::from_be_bytes([port[0], port[1]]));
        Ok((asked, Some(TcpStream::connect(&to)?)))
    })
}

fn client() -> ServiceClientBuilder {
    let retry = RetryConfig::default().submit_attempts(2);
    ServiceClient::builder().base_url(NAME).clock(TestClock::default()).retry(retry)
}

#[test]
fn plain_http_goes_through_a_tunnel_and_the_password_to_the_proxy_alone() {
    let fake = Fake::start();
    let (address, told) = http_proxy(&fake);
    let builder = client().proxy(format!("http://me%40work:s%3Acret@{address}")).no_proxy("");
    let service = builder.connect().unwrap();
    service.health().unwrap();
    let asked = told.recv().unwrap();
    assert!(asked.starts_with("CONNECT trainer.example:8000 HTTP/1.1\n"), "{asked}");
    let login = format!("Proxy-Authorization: Basic {}", STANDARD.encode("me@work:s:cret"));
    assert!(asked.contains(&login), "{asked}");
    let request = &fake.requests("healthz")[0];
    assert_eq!(request.path, "/api/v1/healthz");
    assert!(!request.headers.contains_key("proxy-authorization"));
}

#[test]
fn socks_proxies_are_told_the_name_of_the_server() {
    let fake = Fake::start();
    let (address, told) = socks_proxy(&fake);
    let builder = client().proxy(format!("socks5h://me:s%3Acret@{address}")).no_proxy("");
    builder.connect().unwrap().health().unwrap();
    assert_eq!(told.recv().unwrap(), "me s:cret trainer.example 8000");
}

#[test]
fn a_proxy_that_refuses_is_named_and_its_password_is_not() {
    let cases = [
        ("407 Proxy Authentication Required", "does not accept the user and password"),
        ("403 Forbidden", "many proxies allow port 443 only"),
        ("503 Service Unavailable", "it could not reach the server"),
    ];
    for (status, advice) in cases {
        let (address, _told) = refusing_proxy(status);
        let builder = client().proxy(format!("http://me:s3cret@{address}")).no_proxy("");
        let error = builder.rest().unwrap().sessions().unwrap_err().to_string();
        let named =
            format!("the proxy http://{address} (from ServiceClientBuilder::proxy) refused");
        assert!(error.contains(&named) && error.contains(advice), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

/// Its second half runs in a process of its own, whose environment it can choose.
#[test]
fn the_environment_chooses_the_proxy() {
    const ROLE: &str = "TINSMITH_TEST_PROXY";
    if std::env::var_os(ROLE).is_some() {
        let outcome = client().connect().map(|_| ()).map_err(|error| error.to_string());
        println!("connected: {outcome:?}");
        return;
    }
    let fake = Fake::start();
    let (address, told) = http_proxy(&fake);
    let run = |variable: &str, value: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["the_environment_chooses_the_proxy", "--exact", "--nocapture"]).env(ROLE, "1");
        for name in ["http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
            child.env_remove(name);
        }
        let output = child.env(variable, value).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run("http_proxy", &address.to_string());
    assert!(text.contains("connected: Ok(())"), "{text}");
    assert!(told.recv().unwrap().starts_with("CONNECT trainer.example:8000 "));
    let text = run("ALL_PROXY", "gopher://gateway.example");
    assert!(text.contains("connected: Err(\"ALL_PROXY: the scheme of a proxy must be"), "{text}");
}

#[test]
fn this_machine_is_reached_without_the_proxy() {
    let fake = Fake::start();
    let builder = fake.builder().proxy("http://gateway.example:3128");
    builder.connect().unwrap().health().unwrap();
    let error = client().proxy("gopher://gateway.example").connect().unwrap_err();
    assert!(matches!(error, Error::Config { what: "ServiceClientBuilder::proxy", .. }), "{error}");
}

#[test]
fn a_download_goes_the_way_of_its_own_host() {
    let fake = Fake::start();
    let (address, told) = http_proxy(&fake);
    let builder = fake.builder().no_proxy("direct.example");
    let rest = builder.proxy(format!("http://{address}")).rest().unwrap();
    fake.script("archive.tar", [support::raw(200, "weights")]);
    let mut file = Vec::new();
    rest.download("http://storage.example/archive.tar", &mut file).unwrap();
    assert_eq!(file, b"weights");
    assert!(told.recv().unwrap().starts_with("CONNECT storage.example:80 "));

    let (address, _told) = refusing_proxy("403 Forbidden");
    let rest = fake.builder().no_proxy("").proxy(format!("http://{address}")).rest().unwrap();
    let error = rest.download("http://storage.example/archive.tar", &mut file).unwrap_err();
    let expected = format!("the proxy http://{address} (from ServiceClientBuilder::proxy) refused");
    assert!(error.to_string().contains(&expected), "{error}");
}
