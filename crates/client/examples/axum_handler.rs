//! Results in an async program: an axum handler that tells how likely a model finds a text, byte by
//! byte.
//!
//! `cargo run --release --example axum_handler` asks itself one question and ends; with
//! `--listen 127.0.0.1:8080` it serves: `curl --data 'the smith' http://127.0.0.1:8080/score`.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result};
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use tinsmith_client::{Error, ModelInput, SamplingClient, ServiceClient};
use tinsmith_trainer::{Trainer, tokenizer::encode};

fn main() -> Result<()> {
    let trainer = Trainer::spawn()?;
    let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    let sampler = service.create_sampling_client("tiny-qwen3")?;
    let router = Router::new().route("/score", post(score)).with_state(sampler);

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (address, is_served) = address()?;
        let listener = tokio::net::TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        match is_served {
            true => {
                println!("listening on {address}");
                Ok(server.await??)
            }
            false => {
                let answer = tokio::task::spawn_blocking(move || ask(address, "the smith"));
                println!("{}", answer.await??);
                Ok(())
            }
        }
    })
}

async fn score(
    State(sampler): State<SamplingClient>,
    text: String,
) -> Result<Json<Vec<Option<f32>>>, (StatusCode, String)> {
    let prompt = ModelInput::from_tokens(encode(&text));
    // Sending blocks until the server has the request; waiting for the result does not.
    let sent = tokio::task::spawn_blocking(move || sampler.compute_logprobs(&prompt));
    let future = sent.await.map_err(|error| failed(&error))?.map_err(|error| refused(&error))?;
    future.await.map(Json).map_err(|error| refused(&error))
}

fn refused(error: &Error) -> (StatusCode, String) {
    match error {
        Error::Config { .. } => (StatusCode::BAD_REQUEST, error.to_string()),
        error => failed(error),
    }
}

fn failed(error: &dyn std::error::Error) -> (StatusCode, String) {
    (StatusCode::BAD_GATEWAY, error.to_string())
}

/// Where to listen, and whether to go on listening.
fn address() -> Result<(SocketAddr, bool)> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        None => Ok((([127, 0, 0, 1], 0).into(), false)),
        Some("--listen") => {
            let address = arguments.next().context("--listen needs an address")?;
            Ok((address.parse()?, true))
        }
        Some(other) => anyhow::bail!("`{other}` is not --listen"),
    }
}

fn ask(address: SocketAddr, text: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let head = format!("POST /score HTTP/1.0\r\nContent-Length: {}\r\n\r\n", text.len());
    stream.write_all(format!("{head}{text}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    Ok(format!("logprobs of {text:?}: {body}"))
}
