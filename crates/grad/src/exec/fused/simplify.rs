//! A kernel's values before it is compiled: each computed once, and in as few instructions as there are for it.

use std::collections::HashMap;

use super::compile::node_of;
use super::program::{Arg, Kernel, KernelOp, Node, Outcome};

/// Equal nodes are computed once: derivatives repeat much of what the forward pass has. A selection by a comparison is one
/// node, and what nobody needs then is left out. Gives the nodes that remain, and the results of them.
pub(super) fn simplified(kernel: &Kernel) -> (Vec<Node>, Vec<Outcome>) {
    let mut seen: HashMap<Node, u32> = HashMap::new();
    let mut nodes: Vec<Node> = Vec::new();
    let mut values = Vec::with_capacity(kernel.nodes.len());
    for node in &kernel.nodes {
        let node = chosen(
            Node {
                op: node.op,
                args: node.args.map(|arg| renamed(arg, &values)),
            },
            &nodes,
        );
        values.push(match node.op {
            KernelOp::Copy if node_of(&node.args[0]).is_some() => node.args[0],
            _ => Arg::Node(*seen.entry(node).or_insert_with(|| {
                nodes.push(node);
                nodes.len() as u32 - 1
            })),
        });
    }

    let mut is_needed = vec![false; nodes.len()];
    let results = kernel
        .results
        .iter()
        .map(|result| renamed(result.value(), &values));
    results
        .filter_map(|value| node_of(&value))
        .for_each(|node| is_needed[node] = true);
    for at in (0..nodes.len()).rev() {
        if is_needed[at] {
            nodes[at]
                .args
                .iter()
                .filter_map(node_of)
                .for_each(|arg| is_needed[arg] = true);
        }
    }
    let mut place = vec![Arg::Absent; nodes.len()];
    let mut kept = Vec::with_capacity(nodes.len());
    for (at, node) in nodes
        .into_iter()
        .enumerate()
        .filter(|(at, _)| is_needed[*at])
    {
        place[at] = Arg::Node(kept.len() as u32);
        kept.push(Node {
            op: node.op,
            args: node.args.map(|arg| renamed(arg, &place)),
        });
    }
    let of_kept = |arg| renamed(renamed(arg, &values), &place);
    let results = kernel.results.iter().map(|result| result.with(of_kept));
    (kept, results.collect())
}

fn renamed(arg: Arg, values: &[Arg]) -> Arg {
    match arg {
        Arg::Node(node) => values[node as usize],
        other => other,
    }
}

/// `node`, or the choice that it is, if it selects by a comparison of arrays.
fn chosen(node: Node, nodes: &[Node]) -> Node {
    if let (KernelOp::Select, Some(mask)) = (node.op, node_of(&node.args[0]))
        && let Node {
            op: KernelOp::Binary(op),
            args: [a @ (Arg::Node(_) | Arg::Array(_)), b, ..],
        } = nodes[mask]
        && op.is_comparison()
    {
        return Node {
            op: KernelOp::Choose(op),
            args: [a, b, node.args[1], node.args[2]],
        };
    }
    node
}
