//! Custom losses that the server evaluates: a traced function as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tolerant::finite;

/// Body of `POST /api/v1/create_custom_loss`. The loss is a function of one datum: of its logprobs
/// and inputs, giving a scalar and metrics.
///
/// ```
/// use tinsmith_wire::{CreateCustomLossRequest, json};
/// let body = CreateCustomLossRequest { session_id: "s".into(), name: "mine".into(), ..Default::default() };
/// assert!(json::to_vec(&body)?.ends_with(br#""name":"mine","inputs":[],"graph":{"format":1,"nodes":[]}}"#));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "create_custom_loss")]
pub struct CreateCustomLossRequest {
    /// The session, which the loss belongs to.
    pub session_id: String,
    /// Number of the loss within the session, from 0.
    pub custom_loss_seq_id: u64,
    /// A name for people.
    pub name: String,
    /// The function's arguments. The first is `logprobs`, the others are loss inputs of the data.
    pub inputs: Vec<CustomLossInput>,
    /// The function.
    pub graph: LossGraph,
}

/// Result of create_custom_loss. The loss runs as `loss_fn` `custom` with `loss_id` among its
/// settings.
///
/// ```
/// use tinsmith_wire::{CreateCustomLossResponse, json};
/// let it: CreateCustomLossResponse = json::from_slice(br#"{"loss_id":"loss-0"}"#)?;
/// assert_eq!(it.loss_id, "loss-0");
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "create_custom_loss")]
pub struct CreateCustomLossResponse {
    /// The new loss.
    pub loss_id: String,
}

/// An argument of a custom loss.
///
/// ```
/// use tinsmith_wire::{CustomLossInput, json};
/// let body = CustomLossInput { name: "logprobs".into(), rank: 1 };
/// assert_eq!(json::to_vec(&body)?, br#"{"name":"logprobs","rank":1}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomLossInput {
    /// Its name: `logprobs`, or that of a loss input.
    pub name: String,
    /// Its number of dimensions, 0 to 2.
    pub rank: u32,
}

/// A function as a list of operations, in the order of execution.
///
/// ```
/// use tinsmith_wire::{Argument, Form, LossGraph, json};
/// let graph: LossGraph = json::from_slice(br#"{"format":1,"nodes":[
///     {"op":"call_function","name":"neg","target":"operator.neg","args":[{"ref":"sum_1"}],"kwargs":{}}]}"#)?;
/// assert_eq!(graph.nodes[0].args, [Argument::Form(Form::Ref("sum_1".into()))]);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossGraph {
    /// Version of the format: 1.
    pub format: u32,
    /// The operations; their names are unique.
    pub nodes: Vec<GraphNode>,
}

impl Default for LossGraph {
    fn default() -> Self {
        LossGraph { format: 1, nodes: Vec::new() }
    }
}

/// One operation.
///
/// ```
/// use tinsmith_wire::{GraphNode, Argument, NodeOp, json};
/// let it: GraphNode = json::from_slice(
///     br#"{"op":"call_method","name":"sum_1","target":"sum","args":[{"ref":"x"}],"kwargs":{"dim":0}}"#,
/// )?;
/// assert_eq!((it.op, it.args.len()), (NodeOp::CallMethod, 1));
/// assert_eq!(it.kwargs["dim"], Argument::Int(0));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphNode {
    /// What kind it is.
    pub op: NodeOp,
    /// What later nodes refer to it by.
    pub name: String,
    /// What is called: the name of an input, a qualified function such as `torch.exp`, a method
    /// such as `sum`.
    pub target: String,
    /// Arguments by position.
    #[serde(default)]
    pub args: Vec<Argument>,
    /// Arguments by name.
    #[serde(default)]
    pub kwargs: BTreeMap<String, Argument>,
}

/// The kinds of operations.
///
/// ```
/// use tinsmith_wire::{NodeOp, json};
/// let body = NodeOp::CallFunction;
/// assert_eq!(json::to_vec(&body)?, br#""call_function""#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeOp {
    /// An input of the function.
    Placeholder,
    /// A call of a function.
    CallFunction,
    /// A call of a method of the first argument.
    CallMethod,
    /// What the function returns, as its one argument.
    Output,
    /// An attribute of a module. Servers refuse it.
    GetAttr,
    /// A call of a module. Servers refuse it.
    CallModule,
}

/// An argument of an operation.
///
/// ```
/// use tinsmith_wire::{Argument, Form, json};
/// let it: Argument = json::from_slice(br#"[null, true, 2, 0.5, "mean", {"dtype":"float32"}]"#)?;
/// let Argument::List(items) = it else { panic!() };
/// assert_eq!(items[..3], [Argument::None, Argument::Flag(true), Argument::Int(2)]);
/// assert_eq!(items[5], Argument::Form(Form::Dtype("float32".into())));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "an argument is null, a flag, a number, a text, a list, or an object with one of the keys ref, tuple, \
                 dict, slice, ellipsis, float, dtype, device, layout, memory_format"
)]
pub enum Argument {
    /// Python's `None`.
    None,
    /// A flag.
    Flag(bool),
    /// An integer.
    Int(i64),
    /// A finite number.
    Float(#[serde(serialize_with = "finite")] f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Argument>),
    /// What JSON has no form of its own for.
    Form(Form),
}

/// What JSON has no form of its own for: an object with one key.
///
/// ```
/// use tinsmith_wire::{Form, NonFinite, json};
/// let body = [Form::Ref("x".into()), Form::Float(NonFinite::NegInf), Form::Ellipsis(true)];
/// assert_eq!(json::to_vec(&body)?, br#"[{"ref":"x"},{"float":"-inf"},{"ellipsis":true}]"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The value of the node of this name.
    Ref(String),
    /// A tuple.
    Tuple(Vec<Argument>),
    /// A dictionary.
    Dict(BTreeMap<String, Argument>),
    /// Start, stop and step, each an integer, a reference or `None`.
    Slice([Box<Argument>; 3]),
    /// `...`, always true.
    Ellipsis(bool),
    /// A number that is not finite.
    Float(NonFinite),
    /// An element type, such as `float32`.
    Dtype(String),
    /// A device.
    Device(Value),
    /// A memory layout.
    Layout(Value),
    /// A memory format.
    MemoryFormat(Value),
}

/// A number that is not finite.
///
/// ```
/// use tinsmith_wire::{NonFinite, json};
/// let body = NonFinite::Nan;
/// assert_eq!(json::to_vec(&body)?, br#""nan""#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NonFinite {
    /// Infinity.
    #[serde(rename = "inf")]
    Inf,
    /// Minus infinity.
    #[serde(rename = "-inf")]
    NegInf,
    /// Not a number.
    #[serde(rename = "nan")]
    Nan,
}
