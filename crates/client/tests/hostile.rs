//! Servers that lie, loop, or never end: every call ends with an error, within its deadline and
//! without taking memory out of proportion.

mod support;

use std::{io::Write, net::TcpStream, sync::mpsc::channel, thread, time::Duration};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use support::{Fake, Reply, ok, raw, status};
use tinsmith_client::{
    AdamParams, Error, LoraConfig, ModelInput, Result, RetryConfig, SamplingParams, ServiceClient,
};

/// Limits that leave a test no time to lose.
fn retry() -> RetryConfig {
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(1));
    RetryConfig::default()
        .connect_timeout(long)
        .attempt_timeout(short)
        .poll_timeout(short)
        .try_timeout(short)
        .start_timeout(long)
        .submit_timeout(long)
        .result_timeout(long)
        .first_delay(Duration::from_millis(20))
        .max_delay(Duration::from_millis(50))
        .max_retry_after(Duration::from_millis(50))
}

/// How long a call may go on beyond all of its deadlines before a test calls it a hang.
const HANG: Duration = Duration::from_secs(60);
/// Most memory, in kB, that all of these servers together may make the clients take.
const MAX_MEMORY: u64 = 256 << 10;

fn connect(fake: &Fake) -> Result<ServiceClient> {
    // By the real clock: silence takes time.
    ServiceClient::builder().base_url(&fake.url).api_key("tml-key").retry(retry()).connect()
}

fn step(fake: &Fake) -> Result<()> {
    let training = connect(fake)?.create_lora_training_client("tiny", &LoraConfig::rank(4))?;
    training.optim_step(&AdamParams::default())?.result().map(drop)
}

fn sample(fake: &Fake) -> Result<()> {
    let sampler = connect(fake)?.create_sampling_client("tiny")?;
    let prompt = ModelInput::from_tokens(vec![1]);
    sampler.sample(&prompt, 1, &SamplingParams::max_tokens(4))?.result().map(drop)
}

fn list(fake: &Fake) -> Result<()> {
    connect(fake)?.rest().training_runs().map(drop)
}

fn download(fake: &Fake) -> Result<()> {
    let url = format!("{}/archive", fake.url);
    connect(fake)?.rest().download(&url, &mut std::io::sink()).map(drop)
}

/// 1 GiB of zeros in about 1 MB.
fn bomb() -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        packed.write_all(&zeros).unwrap();
    }
    packed.finish().unwrap()
}

fn forever(stream: &mut TcpStream, head: &[u8], again: &[u8]) {
    let _ = stream.write_all(head);
    while stream.write_all(again).is_ok() {}
}

fn endless_body(stream: &mut TcpStream) {
    forever(stream, b"HTTP/1.1 200 X\r\n\r\n", &[b'x'; 1 << 16]);
}

fn endless_chunks(stream: &mut TcpStream) {
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 1 << 16], b"\r\n"].concat();
    forever(stream, b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk);
}

fn endless_headers(stream: &mut TcpStream) {
    forever(stream, b"HTTP/1.1 200 X\r\n", b"X-Again: and again and again\r\n");
}

fn endless_error(stream: &mut TcpStream) {
    forever(stream, b"HTTP/1.1 400 X\r\n\r\n", &[b'x'; 1 << 16]);
}

fn endless_first_line(stream: &mut TcpStream) {
    forever(stream, b"HTTP/1.1 200 ", &[b'x'; 1 << 10]);
}

fn announced_and_not_sent(stream: &mut TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 9000000000000\r\n\r\n{");
}

fn nonsense(stream: &mut TcpStream) {
    let _ = stream.write_all(b"\0\xff\xfe SSH-2.0-OpenSSH_9.2 \r\n\r\n");
}

type Call = fn(&Fake) -> Result<()>;
type Kind = (&'static str, Call, &'static str, Box<dyn Fn() -> Reply + Send>);

fn kinds() -> Vec<Kind> {
    let packed = bomb();
    let bomb = move |kind: &str| {
        let reply = Reply::Send { status: 200, body: packed.clone(), headers: vec![] };
        reply.header("Content-Encoding", "gzip").header("Content-Type", kind)
    };
    let as_json = bomb("application/json");
    let as_protobuf = bomb("application/x-protobuf");
    let same = |reply: Reply| Box::new(move || reply.clone()) as Box<dyn Fn() -> Reply + Send>;
    let own = |answer: fn(&mut TcpStream)| same(Reply::Own(answer));
    let deep = format!("{}1", "[".repeat(500_000));
    vec![
        ("a bomb for a session", step, "create_session", same(as_json.clone())),
        ("a bomb for a step", step, "optim_step", same(as_json.clone())),
        ("a bomb for a result", step, "retrieve_future", same(as_json)),
        ("a bomb for a sample", sample, "retrieve_future", same(as_protobuf)),
        ("an endless session", step, "create_session", own(endless_body)),
        ("an endless result", step, "retrieve_future", own(endless_chunks)),
        ("endless headers", step, "optim_step", own(endless_headers)),
        ("an endless first line", step, "optim_step", own(endless_first_line)),
        ("an endless error", step, "optim_step", own(endless_error)),
        ("terabytes announced", step, "retrieve_future", own(announced_and_not_sent)),
        ("another protocol", step, "create_session", own(nonsense)),
        ("silence to a step", step, "optim_step", same(Reply::Silence)),
        ("silence to a question", step, "retrieve_future", same(Reply::Silence)),
        ("silence to a download", download, "archive", same(Reply::Silence)),
        ("half a download", download, "archive", own(announced_and_not_sent)),
        (
            "complete, and complete, and complete",
            step,
            "retrieve_future",
            same(ok(json!({"status": "complete_metadata", "response_payload_size": 100}))),
        ),
        (
            "a result that is never ready",
            step,
            "retrieve_future",
            same(ok(json!({"type": "try_again", "request_id": "r0", "queue_state": "active"}))),
        ),
        ("a timeout at once", step, "retrieve_future", same(status(408, json!({})))),
        (
            "again, at once",
            step,
            "optim_step",
            same(status(429, json!({})).header("retry-after-ms", "1")),
        ),
        ("a page for a step, each time", step, "optim_step", same(raw(200, "<html>log in</html>"))),
        ("nothing for a result, each time", step, "retrieve_future", same(raw(200, ""))),
        ("deep JSON", step, "retrieve_future", same(raw(200, &deep))),
        (
            "a redirect in a circle",
            step,
            "optim_step",
            same(status(307, json!({})).header("location", "/api/v1/optim_step")),
        ),
        (
            "a list without an end",
            list,
            "training_runs",
            same(ok(json!({
                "training_runs": [],
                "cursor": {"offset": 0, "limit": 100, "total_count": u64::MAX}
            }))),
        ),
        (
            "samples that nobody asked for",
            sample,
            "retrieve_future",
            same(ok(json!({"sequences": vec![json!({"tokens": []}); 1000]}))),
        ),
        (
            "a server that is always busy",
            sample,
            "asample",
            same(status(503, json!({"detail": "busy"}))),
        ),
    ]
}

/// The most memory that this process has had, in kB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn every_call_ends_with_an_error_and_little_memory() {
    let kinds = kinds();
    assert!(kinds.len() >= 20);
    let before = peak();
    let (tell, told) = channel();
    let names: Vec<&str> = kinds.iter().map(|kind| kind.0).collect();
    for (name, call, to, reply) in kinds {
        let tell = tell.clone();
        thread::spawn(move || {
            let fake = Fake::start();
            fake.on("asample", |_| json!({"sequences": []}));
            fake.always(to, reply);
            let _ = tell.send((name, call(&fake)));
        });
    }
    let mut ended = Vec::new();
    while ended.len() < names.len() {
        match told.recv_timeout(HANG) {
            Ok((name, outcome)) => {
                let is_list = name == "a list without an end";
                assert!(outcome.is_err() || is_list, "{name}: no error");
                if let Err(error) = outcome {
                    assert!(!matches!(error, Error::Config { .. }), "{name}: {error}");
                }
                ended.push(name);
            }
            Err(_) => {
                let hung: Vec<_> = names.iter().filter(|name| !ended.contains(name)).collect();
                panic!("these calls do not end: {hung:?}");
            }
        }
    }
    let taken = peak() - before;
    assert!(taken < MAX_MEMORY, "{taken} kB");
}
