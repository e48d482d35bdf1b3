//! The golden data of the wire: what the Python SDK's encoders, decoders and client do. Each kind
//! of case is a file.
//!
//! Every format is read in full: a field or a kind of case that is not known here is a failure.

mod chunking;
mod combine;
mod custom_backward;
mod graph;
mod request;
mod response;
mod retries;
mod server;
mod spec;

pub use combine::metrics as same_metrics;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A case, and the check that its format asks for.
pub struct Case {
    pub id: String,
    check: Check,
    spec: Value,
}

/// The folder is where the case's other files are.
type Check = fn(&Value, &Path) -> Result<()>;

impl Case {
    pub fn run(&self, folder: &Path) -> Result<()> {
        (self.check)(&self.spec, folder)
    }
}

/// The cases of a file whose content is an array.
pub fn of_array(cases: Vec<Value>) -> Result<Vec<Case>> {
    cases.into_iter().map(|spec| case(kind(&spec)?, spec)).collect()
}

/// The cases of a file whose content is an object; `None` when it is none of the wire's.
pub fn of_object(file: &Map<String, Value>) -> Option<Result<Vec<Case>>> {
    let has = |name| file.contains_key(name);
    if has("spec") || has("proto_file") {
        let spec = Value::Object(file.clone());
        return Some(kind(&spec).and_then(|check| Ok(vec![case(check, spec)?])));
    }
    if has("future") || has("submit") {
        return Some(retries(file));
    }
    None
}

/// The kinds of cases, each by a field that only it has.
const KINDS: [(&str, Check); 6] = [
    ("spec", request::check),
    ("proto_file", response::check),
    ("max_chunk_len", chunking::check),
    ("chunks", combine::check),
    ("forward_logprobs", custom_backward::check),
    ("graph", graph::check),
];

fn kind(spec: &Value) -> Result<Check> {
    let kind = KINDS.iter().find(|(field, _)| spec.get(field).is_some());
    let (_, check) = kind.with_context(|| format!("unknown kind of case: {}", excerpt(spec)))?;
    Ok(*check)
}

fn retries(file: &Map<String, Value>) -> Result<Vec<Case>> {
    let mut all = Vec::new();
    for (group, cases) in file {
        let check: Check = match group.as_str() {
            "future" => retries::check_future,
            "submit" => retries::check_submit,
            other => bail!("unknown group of cases `{other}`"),
        };
        let cases: Vec<Value> = read(cases)?;
        all.extend(cases.into_iter().map(|spec| case(check, spec)).collect::<Result<Vec<_>>>()?);
    }
    Ok(all)
}

/// Takes out what every kind of case may begin with: a name, and a note for people.
fn case(check: Check, mut spec: Value) -> Result<Case> {
    let id = spec["name"]
        .as_str()
        .with_context(|| format!("a case without a name: {}", excerpt(&spec)))?
        .to_owned();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("name");
        fields.remove("note");
    }
    Ok(Case { id, check, spec })
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T> {
    T::deserialize(value).with_context(|| format!("reading {}", excerpt(value)))
}

fn excerpt(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}
