//! Sequence ids: order, resends, gaps.

use std::time::Duration;

use serde_json::json;
use tinsmith_trainer::{Counts, Trainer};

use crate::support::{Client, datum, text, texts};

#[test]
fn requests_run_in_the_order_of_their_sequence_ids() {
    let trainer = Trainer::builder().long_poll(Duration::from_millis(1)).spawn().unwrap();
    let client = Client::connect(&trainer);
    let before = trainer.weights_digest(&client.model).unwrap();
    // The step arrives first and waits for the gradient.
    let step = client.submit("optim_step", client.optim_step(2));
    let pending = client.retrieve(&step);
    assert_eq!(pending["type"], "try_again");
    assert!(text(&pending["queue_state_reason"]).contains("seq_id 1"), "{pending}");
    assert_eq!(trainer.weights_digest(&client.model).unwrap(), before);
    assert_eq!(trainer.stats(&client.model).unwrap().executed, Counts::default());

    client.submit("forward_backward", client.forward_backward(1, &texts()));
    assert_ne!(trainer.weights_digest(&client.model).unwrap(), before);
    let result = client.retrieve(&step);
    assert!(result["metrics"]["grad_norm"].as_f64().unwrap() > 0.0, "{result}");
}

#[test]
fn a_resend_runs_once_and_another_body_is_a_conflict() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let first = client.submit("forward_backward", client.forward_backward(1, &texts()));
    assert_eq!(client.submit("forward_backward", client.forward_backward(1, &texts())), first);
    client.retrieve(&first);
    assert_eq!(client.submit("forward_backward", client.forward_backward(1, &texts())), first);
    let (status, detail) =
        client.refused("forward_backward", client.forward_backward(1, &texts()[..1]));
    assert_eq!(status, 409);
    assert!(detail.contains("seq_id 1 has been used"), "{detail}");
    assert_eq!(client.refused("optim_step", client.optim_step(0)).0, 409);
    assert_eq!(trainer.stats(&client.model).unwrap().executed.forward_backward, 1);

    let create = json!({"session_id": client.session, "model_seq_id": 0, "base_model": "tiny-qwen3", "lora_config": {"rank": 8, "seed": 1}});
    assert_eq!(client.ok("create_model", create)["model_id"], client.model);
    let other = json!({"session_id": client.session, "model_seq_id": 0, "base_model": "tiny-qwen3", "lora_config": {"rank": 9}});
    assert_eq!(client.refused("create_model", other).0, 409);
}

#[test]
fn a_refused_request_leaves_no_gap() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    client.refused("forward_backward", client.forward_backward(1, &[]));
    client.result("forward_backward", client.forward_backward(2, &texts()));
    client.refused("forward_backward", client.forward_backward(3, &[]));
    client.result("forward_backward", client.forward_backward(3, &texts()));
}

#[test]
fn no_step_is_taken_along_part_of_a_batch() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let before = trainer.weights_digest(&client.model).unwrap();
    let mut extreme = datum("overflow");
    extreme["loss_fn_inputs"]["weights"] =
        json!({"data": [3e38, 3e38, 3e38, 3e38, 3e38, 3e38, 3e38], "dtype": "float32"});
    client.result("forward_backward", client.forward_backward(1, &texts()));
    let failed = client.submit("forward_backward", client.forward_backward(2, &[extreme]));
    let step = client.submit("optim_step", client.optim_step(3));
    assert_eq!(client.retrieve(&failed)["category"], "user");
    let answer = client.retrieve(&step);
    assert!(text(&answer["error"]).contains("weights are unchanged"), "{answer}");
    assert_eq!(trainer.weights_digest(&client.model).unwrap(), before);
    // The next step starts afresh.
    client.result("forward_backward", client.forward_backward(4, &texts()));
    client.result("optim_step", client.optim_step(5));
    assert_ne!(trainer.weights_digest(&client.model).unwrap(), before);
}
