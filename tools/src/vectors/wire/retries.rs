//! What the client does about answers other than success: its polls for a result, and its repeated
//! submits. How long it waits in between is left to it; the SDK's waits are random.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use tinsmith_client::{AdamParams, Dialect, Error, LossFn};
use tinsmith_wire::{Datum, ErrorCategory, ForwardBackwardOutput, ModelInput};

use super::{
    read,
    server::{Reply, Server},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplySpec {
    status: u16,
    body: Value,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

impl ReplySpec {
    fn build(&self) -> Reply {
        Reply {
            status: self.status,
            headers: self.headers.clone().into_iter().collect(),
            body: match &self.body {
                Value::Null => vec![],
                body => body.to_string().into_bytes(),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "result", rename_all = "snake_case", deny_unknown_fields)]
enum Outcome {
    Ok,
    /// The server's final word on the request.
    RequestFailed {
        category: ErrorCategory,
    },
    /// The client gave up, with this Python exception.
    Error {
        #[serde(rename = "type")]
        _python: String,
    },
    /// The server refused.
    HttpError {
        status: u16,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Future {
    call: String,
    replies: Vec<ReplySpec>,
    #[serde(rename = "then")]
    _then: String,
    outcome: Outcome,
    n_requests: usize,
    iterations: Vec<String>,
    allow_metadata_only: Vec<bool>,
    #[serde(rename = "gaps_s")]
    _gaps: Vec<f64>,
}

pub fn check_future(case: &Value, _: &Path) -> Result<()> {
    let case: Future = read(case)?;
    let server = accepting()?;
    let training = server.training(Dialect::Protobuf)?;
    let before = server.requests("retrieve_future").len();
    let outcome = match case.call.as_str() {
        "optim_step" => {
            let step = training.optim_step(&AdamParams::default())?;
            server.script("retrieve_future", case.replies.iter().map(ReplySpec::build));
            step.result().map(drop)
        }
        "forward_backward" => {
            let datum = Datum::new(ModelInput::from_tokens(vec![1]))
                .with("target_tokens", vec![2i64])
                .with("weights", vec![1.0f32]);
            let step = training.forward_backward(&[datum], LossFn::CrossEntropy, None)?;
            server.script("retrieve_future", case.replies.iter().map(ReplySpec::build));
            step.result().map(drop)
        }
        other => bail!("unknown call `{other}`"),
    };
    // The SDK takes this result in protobuf only; here it may come as JSON, too.
    let is_result = |reply: &ReplySpec| reply.body.get("loss_fn_outputs").is_some();
    if outcome.is_err() || !case.replies.iter().any(is_result) {
        ended(&outcome, &case.outcome)?;
    }
    let polls = server.requests("retrieve_future").split_off(before);
    ensure!(polls.len() == case.n_requests, "{} polls, want {}", polls.len(), case.n_requests);
    let iterations = polls.iter().map(|poll| poll.header("x-tinker-request-iteration"));
    ensure!(
        iterations.clone().eq(case.iterations.iter().map(String::as_str)),
        "iterations {:?}, want {:?}",
        iterations.collect::<Vec<_>>(),
        case.iterations
    );
    let asked = polls.iter().map(|poll| poll.json()["allow_metadata_only"].as_bool());
    ensure!(
        asked.clone().eq(case.allow_metadata_only.iter().copied().map(Some)),
        "allow_metadata_only {:?}, want {:?}",
        asked.collect::<Vec<_>>(),
        case.allow_metadata_only
    );
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submit {
    replies: Vec<ReplySpec>,
    #[serde(rename = "then")]
    _then: String,
    outcome: Outcome,
    n_requests: usize,
    same_seq_id: bool,
    same_idempotency_key: bool,
    #[serde(rename = "gaps_s")]
    _gaps: Vec<f64>,
}

pub fn check_submit(case: &Value, _: &Path) -> Result<()> {
    let case: Submit = read(case)?;
    let server = accepting()?;
    let training = server.training(Dialect::Protobuf)?;
    server.script("optim_step", case.replies.iter().map(ReplySpec::build));
    let outcome = training.optim_step(&AdamParams::default()).and_then(|step| step.result());
    ended(&outcome.map(drop), &case.outcome)?;
    let sent = server.requests("optim_step");
    ensure!(sent.len() == case.n_requests, "{} requests, want {}", sent.len(), case.n_requests);
    let first = sent.first().context("nothing was sent")?;
    let same_key =
        sent.iter().all(|r| r.header("x-idempotency-key") == first.header("x-idempotency-key"));
    ensure!(
        same_key == case.same_idempotency_key,
        "the same key: {same_key}, want {}",
        case.same_idempotency_key
    );
    let same_seq = sent.iter().all(|r| r.json()["seq_id"] == first.json()["seq_id"]);
    ensure!(same_seq == case.same_seq_id, "the same seq_id: {same_seq}, want {}", case.same_seq_id);
    Ok(())
}

fn accepting() -> Result<Server> {
    Server::start(|_| {
        Ok(ForwardBackwardOutput {
            loss_fn_output_type: "ArrayRecord".into(),
            loss_fn_outputs: vec![[("logprobs".to_owned(), vec![-1.0f32].into())].into()],
            ..Default::default()
        })
    })
}

fn ended(got: &Result<(), Error>, want: &Outcome) -> Result<()> {
    match (got, want) {
        (Ok(()), Outcome::Ok) => Ok(()),
        (
            Err(Error::RequestFailed { category, .. }),
            Outcome::RequestFailed { category: wanted },
        ) => {
            // The SDK has one word for all that it does not know.
            let category = match category {
                ErrorCategory::Other(_) => &ErrorCategory::Unknown,
                known => known,
            };
            ensure!(category == wanted, "category {category:?}, want {wanted:?}");
            Ok(())
        }
        (Err(Error::RequestFailed { .. }), Outcome::Error { .. }) => {
            bail!("the request failed, want that the client gave up")
        }
        (Err(_), Outcome::Error { .. }) => Ok(()),
        (Err(Error::Status { status, .. }), Outcome::HttpError { status: wanted }) => {
            ensure!(status == wanted, "status {status}, want {wanted}");
            Ok(())
        }
        (Ok(()), _) => bail!("success, want an error"),
        (Err(error), _) => bail!("unexpected: {error}"),
    }
}
