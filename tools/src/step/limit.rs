//! What it costs to move the bytes of a step, whoever does it: bodies that are ready beforehand are
//! written to a socket, and replies are read into a buffer that is kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use tinsmith_client::wire::{LossFn, Pass, PassRequest, json, proto};
use tinsmith_client::{Datum, TensorData};

use super::Dialect;
use super::null_server::PROTOBUF;

pub struct Limit {
    connection: BufReader<TcpStream>,
    dialect: Dialect,
    /// Path and body of both passes.
    passes: [(&'static str, Vec<u8>); 2],
    reply: Vec<u8>,
}

impl Limit {
    pub fn new(url: &str, dialect: Dialect, data: &[Datum]) -> Result<Self> {
        let address = url.strip_prefix("http://").context("an http address")?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let zeros = |n| TensorData::from(vec![0.0f32; n]);
        let path = match dialect {
            Dialect::Json => "forward",
            Dialect::Proto => "forward_backward",
        };
        let first = (path, body(dialect, Pass::Forward, data, zeros)?);
        // Any numbers with all their digits will do for a gradient.
        let second = body(dialect, Pass::ForwardBackward, data, gradient)?;
        Ok(Limit {
            connection: BufReader::new(stream),
            dialect,
            passes: [first, ("forward_backward", second)],
            reply: Vec::new(),
        })
    }

    pub fn step(&mut self) -> Result<()> {
        for i in 0..self.passes.len() {
            let (path, body) = &self.passes[i];
            let media_type = media_type(self.dialect);
            post(&mut self.connection, path, media_type, body, &mut self.reply)?;
            let accepted: serde_json::Value = serde_json::from_slice(&self.reply)?;
            let ask = serde_json::json!({"request_id": accepted["request_id"]}).to_string();
            let (path, body) = ("retrieve_future", ask.as_bytes());
            post(&mut self.connection, path, "application/json", body, &mut self.reply)?;
        }
        Ok(())
    }
}

fn media_type(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Json => "application/json",
        Dialect::Proto => PROTOBUF,
    }
}

fn gradient(n: usize) -> TensorData {
    let values: Vec<f32> = (1..=n).map(|i| 1.0 / i as f32).collect();
    values.into()
}

fn body(
    dialect: Dialect,
    pass: Pass,
    data: &[Datum],
    weights: impl Fn(usize) -> TensorData,
) -> Result<Vec<u8>> {
    let travelling = |datum: &Datum| {
        let targets = &datum.loss_fn_inputs["target_tokens"];
        Datum::new(datum.model_input.clone())
            .with("target_tokens", targets.clone())
            .with("weights", weights(targets.elem_count()))
    };
    let request = PassRequest {
        pass,
        data: data.iter().map(travelling).collect(),
        loss_fn: LossFn::CrossEntropy,
        loss_fn_config: None,
        model_id: "null".to_owned(),
        seq_id: 1,
    };
    Ok(match dialect {
        Dialect::Json => json::to_vec(&request)?,
        Dialect::Proto => proto::to_vec(&request)?,
    })
}

/// One exchange of HTTP/1.1; the body of the answer is left in `reply`.
fn post(
    connection: &mut BufReader<TcpStream>,
    path: &str,
    media_type: &str,
    body: &[u8],
    reply: &mut Vec<u8>,
) -> Result<()> {
    let head = format!(
        "POST /api/v1/{path} HTTP/1.1\r\nHost: null\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.get_mut().write_all(head.as_bytes())?;
    connection.get_mut().write_all(body)?;
    let (mut line, mut length) = (String::new(), None);
    connection.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "the null server answered {line:?}");
    while line != "\r\n" {
        line.clear();
        connection.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = Some(value.trim().parse::<usize>()?);
        }
    }
    reply.resize(length.context("an answer without a length")?, 0);
    connection.read_exact(reply)?;
    Ok(())
}
