//! Passes and steps: what they compute.

use serde_json::{Value, json};
use tinsmith_trainer::{Counts, Trainer, tokenizer};

use crate::support::{Client, datum, floats, texts};

#[test]
fn training_lowers_the_loss_and_sampling_shows_it() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let loss = |seq_id| {
        client.result("forward_backward", client.forward_backward(seq_id, &texts()))["metrics"]
                ["loss:sum"]
                .as_f64()
                .unwrap()
    };
    let first = loss(1);
    for step in 0..30 {
        let metrics =
            client.result("optim_step", client.optim_step(2 + 2 * step))["metrics"].clone();
        assert!(metrics["grad_norm"].as_f64().unwrap() > 0.0);
        loss(3 + 2 * step);
    }
    let last = loss(62);
    assert!(last < 0.3 * first, "{first} -> {last}");

    let saved = client.result(
        "save_weights_for_sampler",
        json!({"model_id": client.model, "seq_id": 63, "sampling_session_seq_id": 0}),
    );
    let sample = json!({
        "sampling_session_id": saved["sampling_session_id"], "seq_id": 0, "num_samples": 2, "prompt_logprobs": true,
        "prompt": {"chunks": [{"tokens": tokenizer::encode("pack my box")}]},
        "sampling_params": {"max_tokens": 4, "temperature": 0.0},
    });
    let sampled = client.result("asample", sample);
    assert_eq!(sampled["sequences"].as_array().unwrap().len(), 2);
    assert_eq!(sampled["sequences"][0]["stop_reason"], "length");

    // What sampling says of the prompt is what a forward pass says of it.
    let forward = client.result("forward", client.pass("forward", 64, &[datum("pack my box")]));
    let want = floats(&forward["loss_fn_outputs"][0]["logprobs"]["data"]);
    let got = &sampled["prompt_logprobs"];
    assert!(got[0].is_null());
    for (t, want) in want.iter().enumerate() {
        assert!((got[t + 1].as_f64().unwrap() - want).abs() < 1e-4);
    }

    let counts = Counts { forward: 1, forward_backward: 32, optim_step: 30 };
    let stats = trainer.stats(&client.model).unwrap();
    assert_eq!((stats.received, stats.executed), (counts, counts));
}

#[test]
fn results_have_the_shape_of_the_targets() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let rank2 = json!({
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": [1, 2]}, {"type": "encoded_text", "tokens": [3]}]},
        "loss_fn_inputs": {
            "target_tokens": {"data": [2, 5, 3, 6, 4, 7], "dtype": "int64", "shape": [3, 2]},
            "weights": {"data": [1.0, 0.0, 1.0, 0.0, 0.5, 0.0], "dtype": "float32", "shape": [3, 2]},
        },
    });
    let rank1 = json!({
        "model_input": {"chunks": [{"tokens": [1, 2, 3]}]},
        "loss_fn_inputs": {
            "target_tokens": {"data": [2, 3, 4], "dtype": "int64"},
            "weights": {"data": [1.0, 1.0, 0.5], "dtype": "float32"},
        },
    });
    let output = client.result("forward", client.pass("forward", 1, &[rank2, rank1]));
    let logprobs = |i: usize| floats(&output["loss_fn_outputs"][i]["logprobs"]["data"]);
    assert_eq!(output["loss_fn_outputs"][0]["logprobs"]["shape"], json!([3, 2]));
    assert_eq!(output["loss_fn_outputs"][1]["logprobs"]["shape"], json!([3]));
    let (two, one) = (logprobs(0), logprobs(1));
    for t in 0..3 {
        assert!((two[2 * t] - one[t]).abs() < 1e-5);
    }
    let want = -2.0 * (one[0] + one[1] + 0.5 * one[2]);
    assert!((output["metrics"]["loss:sum"].as_f64().unwrap() - want).abs() < 1e-4);
}

#[test]
fn equal_requests_to_two_trainers_give_bit_identical_weights() {
    let run = |lora: Value| {
        let trainer = Trainer::spawn().unwrap();
        let client = Client::with_lora(&trainer, lora);
        for step in 0..3 {
            client.submit("forward_backward", client.forward_backward(1 + 2 * step, &texts()));
            client.submit("optim_step", client.optim_step(2 + 2 * step));
        }
        trainer.weights_digest(&client.model).unwrap()
    };
    let seeded = run(json!({"rank": 4, "seed": 7}));
    assert_eq!(seeded, run(json!({"rank": 4, "seed": 7})));
    assert_ne!(seeded, run(json!({"rank": 4, "seed": 8})));
    assert_eq!(run(json!({"rank": 4})), run(json!({"rank": 4})));
}

#[test]
fn importance_sampling_on_policy_trains_like_weighted_cross_entropy() {
    let trainer = Trainer::spawn().unwrap();
    let train = |on_policy: bool| {
        let client = Client::connect(&trainer);
        let text = "on policy";
        let n = text.len() - 1;
        let advantages =
            json!({"data": (0..n).map(|t| t as f64 - 2.5).collect::<Vec<_>>(), "dtype": "float32"});
        let forward = client.result("forward", client.pass("forward", 1, &[datum(text)]));
        let mut datum = datum(text);
        let mut body = client.forward_backward(2, &[]);
        if on_policy {
            // With q = the policy's own logprobs every ratio is 1, and the gradient is -advantage,
            // as with weights.
            datum["loss_fn_inputs"]["logprobs"] = forward["loss_fn_outputs"][0]["logprobs"].clone();
            datum["loss_fn_inputs"]["advantages"] = advantages;
            body["forward_backward_input"]["loss_fn"] = json!("importance_sampling");
        } else {
            datum["loss_fn_inputs"]["weights"] = advantages;
        }
        body["forward_backward_input"]["data"] = json!([datum]);
        client.result("forward_backward", body);
        let mut step = client.optim_step(3);
        step["adam_params"]["eps"] = json!(1e-3);
        client.result("optim_step", step);
        let flat = |(_, tensor): (String, tinsmith_grad::Tensor)| {
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        trainer.weights(&client.model).unwrap().into_iter().flat_map(flat).collect::<Vec<_>>()
    };
    for (a, b) in train(true).iter().zip(train(false)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}
