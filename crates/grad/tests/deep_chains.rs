//! A graph may be as deep as a loss over a big batch makes it, whatever the stack.

use tinsmith_grad::{Device, Var};

#[test]
fn a_million_nodes_evaluate_differentiate_and_drop_on_a_small_stack() {
    const NODES: usize = 1_000_000;
    let small_stack = std::thread::Builder::new().stack_size(256 * 1024);
    let thread = small_stack.spawn(|| {
        let x = Var::from_vec(vec![0.5f64], &[1], &Device::Cpu);
        let mut chain = x.clone();
        for _ in 0..NODES / 2 {
            chain = (chain * 0.999_999) + 1e-6;
        }
        let loss = chain.sum();
        let value = loss.item().unwrap();
        let gradient = loss.backward(&[&x]).unwrap()[0].to_vec1::<f64>().unwrap()[0];
        (value, gradient)
    });
    let (value, gradient) = thread.unwrap().join().unwrap();
    // c -> a c + (1 - a) has the fixed point 1 and contracts by a at each step.
    let contraction = 0.999_999f64.powi(NODES as i32 / 2);
    assert!((gradient - contraction).abs() < 1e-9, "{gradient} {contraction}");
    assert!((value - (1.0 - 0.5 * contraction)).abs() < 1e-9, "{value}");
}
