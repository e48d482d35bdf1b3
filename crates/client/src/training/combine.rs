//! Results of a batch that went in several requests, put together.

use tinsmith_wire::{ForwardBackwardOutput, Metrics};

/// The results of a batch that went in several requests, as one: outputs in order; of the metrics
/// that every part has, what the suffix of their names says (`name:sum`, `:mean`, ..). The client
/// does this by itself.
///
/// ```
/// use tinsmith_client::{ForwardBackwardOutput, combine_outputs};
/// let part = |loss| ForwardBackwardOutput {
///     metrics: [("loss:sum", loss)].into_iter().collect(),
///     ..Default::default()
/// };
/// assert_eq!(combine_outputs(vec![part(1.5), part(2.0)]).metrics["loss:sum"], 3.5);
/// ```
pub fn combine(parts: Vec<ForwardBackwardOutput>) -> ForwardBackwardOutput {
    let metrics = combine_metrics(&parts);
    let loss_fn_output_type =
        parts.first().map(|part| part.loss_fn_output_type.clone()).unwrap_or_default();
    ForwardBackwardOutput {
        loss_fn_output_type,
        loss_fn_outputs: parts.into_iter().flat_map(|part| part.loss_fn_outputs).collect(),
        metrics,
    }
}

fn combine_metrics(parts: &[ForwardBackwardOutput]) -> Metrics {
    let mut combined = Metrics::default();
    let Some(first) = parts.first() else {
        return combined;
    };
    let weights: Vec<f64> = parts.iter().map(|part| part.loss_fn_outputs.len() as f64).collect();
    for (name, only) in first.metrics.iter() {
        let Some(values) =
            parts.iter().map(|part| part.metrics.get(name)).collect::<Option<Vec<f64>>>()
        else {
            continue;
        };
        let suffix = name.rsplit_once(':').map_or("", |(_, suffix)| suffix);
        match suffix {
            "sum" => combined.insert(name, values.iter().sum()),
            "mean" => combined.insert(name, mean(&values, &weights)),
            "min" => combined.insert(name, extreme(&values, f64::min)),
            "max" => combined.insert(name, extreme(&values, f64::max)),
            "slack" => combined.insert(name, extreme(&values, f64::max) - mean(&values, &weights)),
            "unique" => {
                for (i, &value) in values.iter().enumerate() {
                    let numbered = if i == 0 { name.to_owned() } else { format!("{name}_{i}") };
                    combined.insert(numbered, value);
                }
            }
            "hash2" => {
                let hash = |part: &ForwardBackwardOutput| wrapped(&part.metrics, name);
                if let Some(hashes) = parts.iter().map(hash).collect::<Option<Vec<u64>>>() {
                    combined.insert_u64(name, hashes.into_iter().fold(0, u64::wrapping_add));
                }
            }
            _ if parts.len() == 1 => combined.insert(name, only),
            _ => {}
        }
    }
    combined
}

fn mean(values: &[f64], weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    if total == 0.0 {
        return values.iter().sum::<f64>() / values.len() as f64;
    }
    values.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>() / total
}

/// The least or greatest; NaN if there is one, which `f64::min` alone would pass over.
fn extreme(values: &[f64], pick: fn(f64, f64) -> f64) -> f64 {
    if values.iter().any(|x| x.is_nan()) {
        return f64::NAN;
    }
    values.iter().copied().reduce(pick).unwrap_or(f64::NAN)
}

/// The integer part modulo 2^64; nothing for NaN and infinities.
fn wrapped(metrics: &Metrics, name: &str) -> Option<u64> {
    if let Some(exact) = metrics.exact_u64(name) {
        return Some(exact);
    }
    let x = metrics.get(name).filter(|x| x.is_finite())?.trunc();
    // The remainder of two integers is exact in f64.
    let size = (x.abs() % 2f64.powi(64)) as u64;
    Some(if x < 0.0 { size.wrapping_neg() } else { size })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tinsmith_wire::TensorData;

    use super::*;

    /// A number of the vectors; NaN and infinities are strings there.
    fn number(v: &Value) -> f64 {
        match v.as_str() {
            Some("NaN") => f64::NAN,
            Some("Infinity") => f64::INFINITY,
            Some("-Infinity") => f64::NEG_INFINITY,
            _ => v.as_f64().unwrap(),
        }
    }

    /// Part `i`, of type `Ti`, whose output `j` is numbered `100 * i + j`.
    fn part(i: usize, spec: &Value) -> ForwardBackwardOutput {
        let n = spec["n_outputs"].as_u64().unwrap();
        let output =
            |j: u64| [("n".to_owned(), TensorData::from(vec![100 * i as i64 + j as i64]))].into();
        ForwardBackwardOutput {
            loss_fn_output_type: format!("T{i}"),
            loss_fn_outputs: (0..n).map(output).collect(),
            metrics: spec["metrics"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| (k, number(v)))
                .collect(),
        }
    }

    fn near(got: f64, expected: f64) -> bool {
        got == expected
            || got.is_nan() && expected.is_nan()
            || (got - expected).abs() <= 1e-12 * expected.abs()
    }

    #[test]
    fn parts_are_combined_as_the_sdk_combines_them() {
        let cases = include_str!("../../../../tests/vectors/wire/metrics_combine.json");
        for case in serde_json::from_str::<Vec<Value>>(cases).unwrap() {
            let parts = case["chunks"].as_array().unwrap().iter().enumerate();
            let combined = combine(parts.map(|(i, spec)| part(i, spec)).collect());
            let (name, expected) = (&case["name"], &case["expected"]);
            if expected.is_null() {
                continue; // The SDK raises; the next test says what is done here.
            }
            assert_eq!(combined.loss_fn_output_type, expected["loss_fn_output_type"], "{name}");
            let order: Vec<i64> =
                combined.loss_fn_outputs.iter().map(|o| o["n"].as_i64().unwrap()[0]).collect();
            assert_eq!(Value::from(order), expected["output_order"], "{name}");
            let metrics = expected["metrics"].as_object().unwrap();
            assert_eq!(combined.metrics.len(), metrics.len(), "{name}: {:?}", combined.metrics);
            for (key, value) in metrics {
                match value.as_u64().filter(|_| key.ends_with(":hash2")) {
                    Some(exact) => {
                        assert_eq!(combined.metrics.exact_u64(key), Some(exact), "{name} {key}")
                    }
                    None => {
                        assert!(near(combined.metrics[key.as_str()], number(value)), "{name} {key}")
                    }
                }
            }
        }
    }

    #[test]
    fn what_the_sdk_raises_on_is_kept_as_far_as_it_makes_sense() {
        let one = |n, name: &str, value| ForwardBackwardOutput {
            loss_fn_outputs: vec![Default::default(); n],
            metrics: [(name, value)].into_iter().collect(),
            ..Default::default()
        };
        assert_eq!(combine(vec![one(1, "lr", 0.5)]).metrics["lr"], 0.5);
        assert!(combine(vec![one(1, "lr", 0.5), one(1, "lr", 0.5)]).metrics.is_empty());
        assert_eq!(
            combine(vec![one(0, "a:mean", 1.5), one(0, "a:mean", 2.5)]).metrics["a:mean"],
            2.0
        );
        assert!(combine(vec![]).loss_fn_outputs.is_empty());
    }
}
