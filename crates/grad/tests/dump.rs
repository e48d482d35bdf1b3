//! What a graph looks like when printed.

use std::sync::Arc;

use tinsmith_grad::{CustomOp, DType, Device, Ragged, Tensor, Var, dump, grad};

#[track_caller]
fn vector(data: &[f64]) -> Var {
    Var::from_vec(data.to_vec(), &[data.len()], &Device::Cpu)
}

/// The dump without the places in this file, which a test would have to repeat line by line.
fn without_places(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("  at ").next().unwrap().trim_end());
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_node_is_one_line_and_shared_ones_are_shown_once() {
    let x = vector(&[0.1, 0.2, 0.3]).label("logprobs");
    let ratio = (&x - x.detach()).exp().label("ratio");
    let loss = (&ratio * ratio.clamp(0.8, 1.2)).sum();
    let gradient = &grad(&loss, &[&x]).unwrap()[0];
    let expected = "\
%0 = leaf                       [3] f64  \"logprobs\"
%1 = detach(%0)                 [3] f64
%2 = sub(%0, %1)                [3] f64
%3 = exp(%2)                    [3] f64  \"ratio\"
%4 = clamp(%3, lo=0.8, hi=1.2)  [3] f64
%5 = mul(%3, %4)                [3] f64
%6 = sum(%5, dims=[0])          [] f64
roots: %6
";
    assert_eq!(without_places(&loss.dump().to_string()), expected);
    let both = dump(&[&loss, gradient, &loss]).to_string();
    assert!(both.ends_with(&format!("roots: %6, %{}, %6\n", both.lines().count() - 2)), "{both}");
}

#[test]
fn lines_name_the_place_that_recorded_the_op() {
    let line = line!() + 1;
    let x = vector(&[1.0]).exp();
    let places: Vec<String> = x
        .dump()
        .to_string()
        .lines()
        .take(2)
        .map(|l| l.split("  at ").nth(1).unwrap().into())
        .collect();
    let place = |column: u32| format!("{}:{line}:{column}", file!());
    assert_eq!(places, [place(13), place(28)]);
}

struct Doubled;

impl CustomOp for Doubled {
    fn name(&self) -> &'static str {
        "doubled"
    }
    fn output(&self, inputs: &[Var]) -> Result<(Vec<usize>, DType), String> {
        Ok((inputs[0].shape().to_vec(), inputs[0].dtype()))
    }
    fn forward(&self, inputs: &[Tensor]) -> candle_core::Result<Tensor> {
        &inputs[0] * 2.0
    }
    fn vjp(&self, _: &[Var], _: &Var, _: usize, grad: &Var) -> Option<Var> {
        Some(grad * 2.0)
    }
}

#[test]
fn parameters_are_shown() {
    let x = Var::from_vec(vec![0f32; 6], &[2, 3], &Device::Cpu);
    let ids = Var::from_vec(vec![1i64, 0], &[2], &Device::Cpu);
    let packed = Ragged::new(x.clone(), &[1, 0, 1]);
    let cases: [(Var, &str); 21] = [
        (Var::full(0.5, &[2], DType::F32, &Device::Cpu), "full(0.5) [2] f32"),
        (x.powf(1.5), "powf(%0, exponent=1.5) [2, 3] f32"),
        (x.clamp_min(0.0), "clamp(%0, lo=0, hi=inf) [2, 3] f32"),
        (x.to_dtype(DType::F64), "to_dtype(%0) [2, 3] f64"),
        (x.gt(&x), "gt(%0, %0) [2, 3] u8"),
        (x.max_dims(&[0, -1]), "max(%0, dims=[0, 1]) [] f32"),
        (x.min_keepdim(&[0]), "min(%0, dims=[0]) [1, 3] f32"),
        (x.broadcast_to(&[4, 2, 3]), "broadcast_to(%0) [4, 2, 3] f32"),
        (x.t(), "permute(%0, dims=[1, 0]) [3, 2] f32"),
        (x.narrow(1, 1, 2), "narrow(%0, dim=1, start=1) [2, 2] f32"),
        (x.pad(0, 1, 2), "pad(%0, dim=0, before=1) [5, 3] f32"),
        (Var::cat(&[x.clone(), x.clone()], 1), "cat(%0, %0, dim=1) [2, 6] f32"),
        (x.flip(&[0]), "flip(%0, dims=[0]) [2, 3] f32"),
        (x.cumsum(-1), "cumsum(%0, dim=1) [2, 3] f32"),
        (x.index_select(&ids, 0), "index_select(%0, %1, dim=0) [2, 3] f32"),
        (x.index_add(&ids, &x, 0), "index_add(%0, %1, %0, dim=0) [2, 3] f32"),
        (x.gather(&ids.reshape(&[2, 1]), 1), "gather(%0, %2, dim=1) [2, 1] f32"),
        (packed.sum_per_seq(), "sum_per_seq(%0, sequences=3) [3, 3] f32"),
        (
            packed.expand(&packed.max_per_seq()).values().clone(),
            "expand(%1, sequences=3) [2, 3] f32",
        ),
        (Var::custom(Arc::new(Doubled), &[&x]), "doubled(%0) [2, 3] f32"),
        (x.matmul(&x.t()), "matmul(%0, %1) [2, 2] f32"),
    ];
    for (var, expected) in cases {
        let text = without_places(&var.dump().to_string());
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len() - 2].split_once(" = ").unwrap().1;
        let words: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(words.join(" "), expected);
    }
}

#[test]
fn an_op_that_was_refused_shows_its_error() {
    let broken = vector(&[1.0]).reshape(&[7]).exp();
    let text = broken.dump().to_string();
    assert!(
        text.starts_with(
            "%0 = invalid(reshape: shapes [1] and [7] hold different numbers of elements"
        ),
        "{text}"
    );
}

#[test]
fn a_long_graph_stays_short_and_says_what_it_leaves_out() {
    let sequences: Vec<Var> = (0..1000).map(|i| vector(&[f64::from(i)])).collect();
    let joined = Var::cat(&sequences, 0).sum();
    let text = joined.dump().max_nodes(3).to_string();
    let expected = "\
%0 = leaf
... 999 nodes left out
%1000 = cat(%0, %1, %2, %3, %4, ... 994 more, %999, dim=0)
%1001 = sum(%1000, dims=[0])
roots: %1001
";
    let first_columns: String = without_places(&text)
        .lines()
        .map(|line| line.split("  ").next().unwrap().trim_end().to_owned() + "\n")
        .collect();
    assert_eq!(first_columns, expected);
    assert_eq!(joined.dump().to_string().lines().count(), 100 + 2);
    assert_eq!(joined.dump().max_nodes(usize::MAX).to_string().lines().count(), 1002 + 1);
    assert_eq!(joined.dump().max_nodes(0).to_string().lines().count(), 1 + 2);
}

#[test]
fn a_million_nodes_print_on_a_small_stack() {
    let small_stack = std::thread::Builder::new().stack_size(256 * 1024);
    let thread = small_stack.spawn(|| {
        let chain = (0..1_000_000).fold(vector(&[0.5]), |x, _| -x);
        (chain.dump().to_string(), chain.dump().dot())
    });
    let (text, dot) = thread.unwrap().join().unwrap();
    assert!(text.contains("... 999901 nodes left out"), "{text}");
    assert!(text.ends_with("roots: %1000000\n"));
    assert_eq!(dot.matches(" -> ").count(), 98 + 2);
}

#[test]
fn dot_draws_nodes_arrows_and_the_gap() {
    let x = vector(&[0.5]).label("a \"b\"\\\n");
    let place = |line: u32, column: u32| format!("{}:{line}:{column}", file!());
    let line = line!() + 1;
    let loss = (x.exp() * x.exp()).sum();
    let at_x = place(line - 3, 13);
    let expected = format!(
        r#"digraph {{
  node [shape=box, fontname=monospace];
  n0 [label="%0 leaf\n[1] f64\na \"b\"\\\\n\n{at_x}", style=rounded];
  n4 [label="%4 sum(dims=[0])\n[] f64\n{}", peripheries=2];
  left_out [label="3 nodes left out", style=dashed];
  left_out -> n4;
  n0 -> left_out;
}}
"#,
        place(line, 36)
    );
    assert_eq!(loss.dump().max_nodes(2).dot(), expected);
    assert_eq!(loss.dump().dot().matches(" -> ").count(), 5);
}
