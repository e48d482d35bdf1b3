use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::ops::Range;

use crate::graph::op::Op;
use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// The graph that some roots depend on, to look at: [`Display`](fmt::Display) prints a line for
/// each node, [`dot`](Dump::dot) draws it for Graphviz. Made by [`Var::dump`] and [`dump`](dump());
/// nothing is evaluated.
///
/// A line has the node's number, its op with operands and parameters, shape, dtype, label, and the
/// line of your source that recorded it. Nodes come in the order they were recorded, each once; the
/// last line names the roots.
///
/// ```
/// use tinsmith_grad::{Device, Var};
///
/// let logprobs = Var::from_vec(vec![-1.0f64, -0.5], &[2], &Device::Cpu).label("logprobs");
/// let loss = -logprobs.exp().clamp(0.1, 0.9).mean();
/// # let place = |line: u32| format!("{}:{line}:", file!());
/// # let printed = loss.dump().to_string().replace(&place(line!() - 3), "loss.rs:4:").replace(&place(line!() - 2), "loss.rs:5:");
/// assert_eq!(printed.trim(), r#"
/// %0 = leaf                       [2] f64  "logprobs"  at loss.rs:4:16
/// %1 = exp(%0)                    [2] f64  at loss.rs:5:22
/// %2 = clamp(%1, lo=0.1, hi=0.9)  [2] f64  at loss.rs:5:28
/// %3 = sum(%2, dims=[0])          [] f64  at loss.rs:5:44
/// %4 = full(2)                    [] f64  at loss.rs:5:44
/// %5 = div(%3, %4)                [] f64  at loss.rs:5:44
/// %6 = neg(%5)                    [] f64  at loss.rs:5:12
/// roots: %6
/// "#.trim());
/// ```
pub struct Dump {
    roots: Vec<Var>,
    max_nodes: usize,
}

/// The graph that `roots` depend on, a loss and its gradients say; see [`Dump`].
///
/// ```
/// # use tinsmith_grad::{Device, Var, dump, grad};
/// let x = Var::from_vec(vec![2f64], &[1], &Device::Cpu);
/// let loss = x.square().sum();
/// let slope = &grad(&loss, &[&x])?[0];
/// let text = dump(&[&loss, slope]).to_string();
/// assert!(text.ends_with("roots: %2, %7\n"), "{text}");
/// # anyhow::Ok(())
/// ```
pub fn dump(roots: &[&Var]) -> Dump {
    Dump { roots: roots.iter().map(|&root| root.clone()).collect(), max_nodes: 100 }
}

impl Var {
    /// The graph that this value depends on, to print; see [`Dump`].
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f32, 2.0], &[1, 2], &Device::Cpu);
    /// assert!(x.sum_dims(&[-1]).dump().to_string().contains("%1 = sum(%0, dims=[1])  [1] f32"));
    /// ```
    pub fn dump(&self) -> Dump {
        dump(&[self])
    }
}

impl Dump {
    /// How many nodes are shown, those recorded first and last; how many are left out between them
    /// is said. Default 100.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![0f64], &[1], &Device::Cpu);
    /// let chain = (0..1000).fold(x, |x, _| x.sin());
    /// let text = chain.dump().max_nodes(4).to_string();
    /// assert!(text.contains("\n... 997 nodes left out\n%999 = sin(%998)"), "{text}");
    /// ```
    pub fn max_nodes(mut self, max_nodes: usize) -> Dump {
        self.max_nodes = max_nodes;
        self
    }

    /// A picture in Graphviz's language: `dot -Tsvg loss.dot > loss.svg`. Arrows go from operands
    /// to results; leaves are rounded, roots have a double border, and what
    /// [`max_nodes`](Dump::max_nodes) leaves out is one dashed node.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![0f64], &[1], &Device::Cpu).label("say \"x\"");
    /// let dot = x.exp().dump().dot();
    /// assert!(dot.starts_with("digraph {\n"));
    /// assert!(dot.contains(r#"label="%0 leaf\n[1] f64\nsay \"x\"\n"#), "{dot}");
    /// assert!(dot.contains("n0 -> n1;"));
    /// ```
    pub fn dot(&self) -> String {
        let View { graph, roots, left_out } = &self.view();
        let shown = |at: usize| (!left_out.contains(&at)).then_some(at);
        let arrows: BTreeSet<_> = (0..graph.len())
            .flat_map(|at| graph.inputs(at).map(move |input| (input, at)))
            .map(|(from, to)| (shown(from), shown(to)))
            .filter(|ends| *ends != (None, None))
            .collect();

        let nodes = (0..graph.len()).filter_map(shown).map(|at| {
            let var = graph.nodes[at];
            let label = [
                Some(format!("%{at} {}", Call(&var.0.op, &[]))),
                Some(Kind(var).to_string()),
                var.label_text(),
                Some(var.0.at.to_string()),
            ];
            let style = match () {
                () if roots.contains(&at) => ", peripheries=2",
                () if matches!(var.0.op, Op::Leaf(_)) => ", style=rounded",
                () => "",
            };
            format!("{} [label={}{style}]", Name(Some(at)), Quoted(&label))
        });
        let gap = (!left_out.is_empty()).then(|| {
            let label = [Some(format!("{} nodes left out", left_out.len()))];
            format!("{} [label={}, style=dashed]", Name(None), Quoted(&label))
        });
        let arrows = arrows.into_iter().map(|(from, to)| format!("{} -> {}", Name(from), Name(to)));
        let head = "node [shape=box, fontname=monospace]".to_owned();
        let statements = std::iter::once(head).chain(nodes).chain(gap).chain(arrows);
        let body: String = statements.map(|s| format!("  {s};\n")).collect();
        format!("digraph {{\n{body}}}\n")
    }

    fn view(&self) -> View<'_> {
        let graph = Graph::reaching(&self.roots);
        let (all, most) = (graph.len(), self.max_nodes.max(1));
        let left_out = match all <= most {
            true => all..all,
            false => most / 2..all - most.div_ceil(2),
        };
        let position = |root| graph.position(root).expect("a root reaches itself");
        View { roots: self.roots.iter().map(position).collect(), graph, left_out }
    }
}

/// What is to be shown: all nodes but those at the positions `left_out`.
struct View<'a> {
    graph: Graph<'a>,
    roots: Vec<usize>,
    left_out: Range<usize>,
}

impl View<'_> {
    fn shown(&self) -> impl Iterator<Item = usize> {
        (0..self.left_out.start).chain(self.left_out.end..self.graph.len())
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view();
        let expression = |at: usize| {
            let inputs: Vec<usize> = view.graph.inputs(at).collect();
            format!("%{at} = {}", Call(&view.graph.nodes[at].0.op, &inputs))
        };
        let lines: Vec<(usize, String)> = view.shown().map(|at| (at, expression(at))).collect();
        let width = lines.iter().map(|(_, e)| e.chars().count()).max();
        let width = width.unwrap_or(0).min(60);
        for (at, expression) in lines {
            if at == view.left_out.end {
                writeln!(f, "... {} nodes left out", view.left_out.len())?;
            }
            let var = view.graph.nodes[at];
            write!(f, "{expression:width$}  {}", Kind(var))?;
            if let Some(label) = var.label_text() {
                write!(f, "  {label:?}")?;
            }
            writeln!(f, "  at {}", var.0.at)?;
        }
        writeln!(f, "roots: {}", List(&view.roots))
    }
}

/// As [`Display`](fmt::Display).
impl fmt::Debug for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shape and dtype; the device too where it is not the CPU.
struct Kind<'a>(&'a Var);

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let var = self.0;
        write!(f, "{:?} {}", var.shape(), var.dtype().as_str())?;
        match var.device().is_cpu() {
            true => Ok(()),
            false => write!(f, " {:?}", var.device().location()),
        }
    }
}

/// A node in Graphviz's language; `None` stands for all that are left out.
struct Name(Option<usize>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => write!(f, "n{at}"),
            None => f.write_str("left_out"),
        }
    }
}

/// An op with its operands and parameters: `narrow(%3, dim=0, start=2)`.
struct Call<'a>(&'a Op, &'a [usize]);

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call(op, inputs) = self;
        let operands = (!inputs.is_empty()).then(|| List(inputs).to_string());
        let parameters = op.parameters().into_iter().map(|(name, value)| match name {
            "" => value.to_string(),
            name => format!("{name}={value}"),
        });
        let arguments: Vec<String> = operands.into_iter().chain(parameters).collect();
        f.write_str(op.name())?;
        match arguments.is_empty() {
            true => Ok(()),
            false => write!(f, "({})", arguments.join(", ")),
        }
    }
}

/// `%1, %2, %3`; of many, a thousand sequences that a `cat` joins say, the first ones and the last.
struct List<'a>(&'a [usize]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 6;
        let (first, rest) = match self.0.len() {
            n if n > MOST => self.0.split_at(MOST - 1),
            n => self.0.split_at(n),
        };
        for (i, node) in first.iter().enumerate() {
            let joint = if i == 0 { "" } else { ", " };
            write!(f, "{joint}%{node}")?;
        }
        match rest {
            [left_out @ .., last] => write!(f, ", ... {} more, %{last}", left_out.len()),
            [] => Ok(()),
        }
    }
}

/// Lines of text as a string of Graphviz's language.
struct Quoted<'a>(&'a [Option<String>]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for (i, line) in self.0.iter().flatten().enumerate() {
            if i > 0 {
                f.write_str("\\n")?;
            }
            for c in line.chars() {
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    c if c.is_control() => write!(f, "\\{}", c.escape_default())?,
                    c => f.write_char(c)?,
                }
            }
        }
        f.write_char('"')
    }
}
