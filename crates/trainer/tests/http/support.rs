//! A client that sends plain JSON, and what it sends.

use serde_json::{Value, json};
use tinsmith_trainer::{Trainer, tokenizer};

/// A client of one trainer, session and model.
pub struct Client {
    pub url: String,
    pub session: String,
    pub model: String,
    pub agent: ureq::Agent,
}

impl Client {
    pub fn connect(trainer: &Trainer) -> Self {
        Self::with_lora(trainer, json!({"rank": 8, "seed": 1}))
    }

    pub fn with_lora(trainer: &Trainer, lora: Value) -> Self {
        Self::on_base(trainer, "tiny-qwen3", lora)
    }

    pub fn on_base(trainer: &Trainer, base: &str, lora: Value) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let mut client = Self {
            url: trainer.url(),
            session: String::new(),
            model: String::new(),
            agent: config.into(),
        };
        let session = client.ok("create_session", json!({"tags": [], "sdk_version": "test"}));
        client.session = text(&session["session_id"]);
        let create = json!({"session_id": client.session, "model_seq_id": 0, "base_model": base, "lora_config": lora});
        client.model = text(&client.result("create_model", create)["model_id"]);
        client
    }

    pub fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(path, body.to_string().as_bytes(), &[("Content-Type", "application/json")])
    }

    pub fn send(&self, path: &str, body: &[u8], headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = self.agent.post(format!("{}/api/v1/{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.send(body).unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&body).unwrap())
    }

    pub fn get(&self, path: &str) -> Value {
        let mut response = self.agent.get(format!("{}/api/v1/{path}", self.url)).call().unwrap();
        assert_eq!(response.status(), 200, "{path}");
        serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
    }

    pub fn ok(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Status and detail of a refusal.
    pub fn refused(&self, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.post(path, body);
        assert!((400..500).contains(&status), "{path}: {status} {answer}");
        (status, text(&answer["detail"]))
    }

    pub fn submit(&self, path: &str, body: Value) -> String {
        text(&self.ok(path, body)["request_id"])
    }

    pub fn retrieve(&self, request_id: &str) -> Value {
        self.ok("retrieve_future", json!({"request_id": request_id}))
    }

    pub fn result(&self, path: &str, body: Value) -> Value {
        let result = self.retrieve(&self.submit(path, body));
        assert_eq!(result.get("error"), None, "{path}");
        result
    }

    pub fn pass(&self, path: &str, seq_id: u64, data: &[Value]) -> Value {
        let field = format!("{path}_input");
        json!({field: {"data": data, "loss_fn": "cross_entropy"}, "model_id": self.model, "seq_id": seq_id})
    }

    pub fn forward_backward(&self, seq_id: u64, data: &[Value]) -> Value {
        self.pass("forward_backward", seq_id, data)
    }

    pub fn optim_step(&self, seq_id: u64) -> Value {
        json!({"adam_params": {"learning_rate": 3e-3}, "model_id": self.model, "seq_id": seq_id, "type": "optim_step"})
    }

    pub fn named(&self, seq_id: u64, name: &str) -> Value {
        json!({"model_id": self.model, "seq_id": seq_id, "path": name})
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}

/// A datum that teaches `text`.
pub fn datum(text: &str) -> Value {
    let tokens = tokenizer::encode(text);
    let (input, targets) = (&tokens[..tokens.len() - 1], &tokens[1..]);
    json!({
        "model_input": {"chunks": [{"tokens": input}]},
        "loss_fn_inputs": {"target_tokens": {"data": targets, "dtype": "int64", "shape": [targets.len()]}},
    })
}

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

pub const TEXTS: [&str; 3] =
    ["the quick brown fox jumps over the lazy dog", "pack my box", "five dozen liquor jugs"];

pub fn texts() -> Vec<Value> {
    TEXTS.map(datum).to_vec()
}
