//! The spans of the feature `tracing`.
#![cfg(feature = "tracing")]

mod support;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use serde_json::json;
use support::{Fake, datum, status};
use tinsmith_client::{AdamParams, Loss};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// Writes down each span and event with its fields, indented by the spans it is in.
#[derive(Clone, Default)]
struct Notes {
    lines: Arc<Mutex<Vec<String>>>,
    depth: Arc<AtomicU64>,
    names: Arc<Mutex<Vec<String>>>,
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if ["call", "seq_id", "name", "data", "reason", "message"].contains(&field.name()) {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tinsmith_client"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(span.metadata().name().to_owned());
        span.record(&mut fields);
        let mut names = self.names.lock().unwrap();
        names.push(fields.0);
        Id::from_u64(names.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields("event".to_owned());
        event.record(&mut fields);
        self.note(&fields.0);
    }

    fn enter(&self, span: &Id) {
        let name = self.names.lock().unwrap()[span.into_u64() as usize - 1].clone();
        self.note(&name);
        self.depth.fetch_add(1, Ordering::Relaxed);
    }

    fn exit(&self, _: &Id) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Notes {
    fn note(&self, text: &str) {
        let depth = self.depth.load(Ordering::Relaxed) as usize;
        self.lines.lock().unwrap().push(format!("{}{text}", "  ".repeat(depth)));
    }
}

#[test]
fn a_step_holds_its_passes_and_the_loss_and_these_their_requests() {
    let fake = Fake::start();
    let training = fake.training();
    let notes = Notes::default();
    tracing::subscriber::with_default(notes.clone(), || {
        let sum = |batch: &tinsmith_client::Batch| Ok(Loss::new(-batch.logprobs().sum()));
        training.forward_backward_custom(&[datum(2)], sum).unwrap().result().unwrap();
        fake.script("optim_step", [status(429, json!({"detail": "busy"}))]);
        drop(training.optim_step(&AdamParams::default()).unwrap());
    });
    let lines = notes.lines.lock().unwrap();
    assert_eq!(
        *lines,
        [
            "step",
            "  pass name=\"forward\" seq_id=1 data=1",
            "    request call=\"forward\" seq_id=1",
            "  request call=\"forward\" seq_id=1",
            "  loss",
            "  pass name=\"forward_backward\" seq_id=2 data=1",
            "    request call=\"forward_backward\" seq_id=2",
            "request call=\"forward_backward\" seq_id=2",
            "request call=\"optim_step\" seq_id=3",
            "event message=retry call=\"optim_step\" seq_id=3 reason=\"429: busy\"",
            "request call=\"optim_step\" seq_id=3",
        ]
    );
}
