//! A custom loss sends, as the weights of the second pass, minus the gradient that PyTorch gives
//! for it.

use serde_json::{Value, json};
use tinsmith_client::{
    Batch, Datum, Loss, ModelInput, TensorData,
    grad::Var,
    losses::{DpoConfig, Reduction, dpo},
};
use tinsmith_tests::{Action, Proxy, Reply, train_in_json};
use tinsmith_trainer::Trainer;

/// f32 against f32, times the greatest value of the tensor where that is above 1.
const TOLERANCE: f64 = 2e-5;

#[test]
fn dpo_written_by_hand_has_the_gradients_of_pytorch() {
    check(|batch, case| {
        let (beta, smoothing) = (case.number("beta"), case.number("label_smoothing"));
        let lp = batch.logprobs().seqs();
        let reference = batch.input("ref_logprobs")?.seqs();
        let weights = batch.input("weights")?.seqs();
        let reward = |i: usize| ((&lp[i] - &reference[i]) * &weights[i]).sum() * beta;
        let pairs = (0..lp.len()).step_by(2).map(|chosen| {
            let margin = reward(chosen) - reward(chosen + 1);
            -(margin.log_sigmoid() * (1.0 - smoothing) + (-&margin).log_sigmoid() * smoothing)
        });
        let pairs = Var::stack(&pairs.collect::<Vec<_>>(), 0);
        Ok(Loss::new(match case.reduction() {
            Reduction::Sum => pairs.sum(),
            _ => pairs.mean(),
        }))
    });
}

#[test]
fn dpo_of_the_catalogue_has_the_gradients_of_pytorch() {
    check(|batch, case| {
        let config = DpoConfig::default()
            .beta(case.number("beta"))
            .label_smoothing(case.number("label_smoothing"))
            .reduction(case.reduction());
        Ok(Loss::new(dpo(
            &batch.logprobs(),
            &batch.input("ref_logprobs")?,
            &batch.input("weights")?,
            &config,
        )))
    });
}

/// Runs every case of the golden file through both passes. The trainer's logprobs are replaced by
/// those of the case.
fn check(loss: impl Fn(&Batch, &Case) -> anyhow::Result<Loss>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/losses/dpo.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases: Vec<Case> =
        file["cases"].as_array().unwrap().iter().map(Case).filter(Case::is_finite).collect();
    assert_eq!(cases.len(), 14, "every case of this file is finite");

    let trainer = Trainer::spawn().unwrap();
    for case in cases {
        let logprobs = case.outputs();
        let proxy = Proxy::before(&trainer.url(), move |request| {
            match request.headers.get("x-tinker-request-type") {
                Some(kind) if kind == "Forward" => Action::Instead(Reply::json(&logprobs)),
                _ => Action::Pass,
            }
        });
        let proxy = proxy.unwrap();
        let training = train_in_json(proxy.url()).unwrap();
        let step = training.forward_backward_custom(&case.data(), |batch| loss(batch, &case));
        let output = step.unwrap().result().unwrap().output;

        let (id, expected) = (&case.0["id"], &case.0["f32"]);
        let value = [output.metrics["loss:sum"]];
        assert_near(&value, &[expected["loss"].as_f64().unwrap()], id);
        let (weights, gradients) = (sent_weights(&proxy), expected["grads"].as_array().unwrap());
        assert_eq!(weights.len(), gradients.len(), "{id}");
        for (weights, gradient) in weights.iter().zip(gradients) {
            let minus: Vec<f64> = numbers(gradient).iter().map(|g| -g).collect();
            assert_near(weights, &minus, id);
        }
        let ran = trainer.stats(training.model_id()).unwrap().executed;
        assert_eq!((ran.forward, ran.forward_backward), (1, 1), "{id}");
    }
}

/// The weights of the only second pass, which carries targets and weights and nothing else.
fn sent_weights(proxy: &Proxy) -> Vec<Vec<f64>> {
    let requests = proxy.requests("forward_backward");
    assert_eq!(requests.len(), 1);
    let input = &requests[0].json()["forward_backward_input"];
    assert_eq!(input["loss_fn"], "cross_entropy");
    let weights = |datum: &Value| {
        let inputs = datum["loss_fn_inputs"].as_object().unwrap();
        assert_eq!(inputs.keys().collect::<Vec<_>>(), ["target_tokens", "weights"]);
        assert_eq!(inputs["weights"]["dtype"], "float32");
        numbers(&inputs["weights"]["data"])
    };
    input["data"].as_array().unwrap().iter().map(weights).collect()
}

fn assert_near(got: &[f64], want: &[f64], case: &Value) {
    assert_eq!(got.len(), want.len(), "{case}");
    let scale = want.iter().fold(1.0, |max: f64, w| max.max(w.abs()));
    let near = |(g, w): (&f64, &f64)| (g - w).abs() <= TOLERANCE * scale;
    assert!(got.iter().zip(want).all(near), "{case}: {got:?} against {want:?}");
}

/// A case of a golden file.
struct Case<'a>(&'a Value);

impl Case<'_> {
    /// The files write NaN and infinities as strings.
    fn is_finite(&self) -> bool {
        let expected = &self.0["f32"];
        let mut gradients = expected["grads"].as_array().unwrap().iter();
        expected["loss"].is_number()
            && gradients.all(|g| g.as_array().unwrap().iter().all(Value::is_number))
    }

    /// A parameter; 0 when the case does not name it.
    fn number(&self, name: &str) -> f64 {
        self.0["params"][name].as_f64().unwrap_or(0.0)
    }

    fn reduction(&self) -> Reduction {
        match self.0["params"]["reduction"].as_str() {
            Some("sum") => Reduction::Sum,
            None => Reduction::Mean,
            other => panic!("no reduction {other:?}"),
        }
    }

    fn sequences(&self) -> usize {
        self.0["logprobs"].as_array().unwrap().len()
    }

    /// The data, on any tokens: the logprobs do not come from the model.
    fn data(&self) -> Vec<Datum> {
        let datum = |i: usize| {
            let tensor = |name: &str| TensorData::from(floats(&self.0["inputs"][name][i]["data"]));
            let len = self.0["logprobs"][i]["data"].as_array().unwrap().len();
            Datum::new(ModelInput::from_tokens(vec![1; len]))
                .with("target_tokens", vec![2i64; len])
                .with("weights", tensor("weights"))
                .with("ref_logprobs", tensor("ref_logprobs"))
        };
        (0..self.sequences()).map(datum).collect()
    }

    /// The logprobs as a trainer would answer them.
    fn outputs(&self) -> Value {
        let output = |lp: &Value| json!({"logprobs": {"dtype": "float32", "shape": lp["shape"], "data": lp["data"]}});
        let outputs: Vec<Value> =
            self.0["logprobs"].as_array().unwrap().iter().map(output).collect();
        json!({"loss_fn_output_type": "ArrayRecord", "loss_fn_outputs": outputs, "metrics": {}})
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    let list = list.as_array().unwrap();
    list.iter().map(|x| x.as_f64().unwrap()).collect()
}

fn floats(list: &Value) -> Vec<f32> {
    numbers(list).iter().map(|&x| x as f32).collect()
}
