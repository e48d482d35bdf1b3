use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use smallvec::SmallVec;

use crate::error::{Error, Loc, Result};
use crate::graph::caller::{attribute, derivative_of, here};
use crate::graph::dims::{Dims, checked_count, elem_count};
use crate::graph::element::{Element, SharedFloats};
use crate::graph::op::{Leaf, Number, Op, Shared};
use crate::graph::segments::Segments;

/// A node of a lazy graph: a tensor that may not have been computed yet, and how to compute it.
///
/// A `Var` is a cheap handle; cloning it names the same node. Recording an op checks shapes and
/// dtypes and computes nothing. Values come from [`item`](Var::item), [`to_vec`](Var::to_vec),
/// [`tensor`](Var::tensor), [`eval`](crate::eval) and [`backward`](Var::backward). Any `Var` can be
/// asked for a gradient.
///
/// An op that cannot be recorded gives a `Var` that carries the [`Error`]; see there.
///
/// ```
/// use tinsmith_grad::{Device, Var};
///
/// let x = Var::from_vec(vec![1f64, 2.0, 3.0], &[3], &Device::Cpu);
/// let loss = (x.square() * 0.5).sum();
/// assert_eq!(loss.item()?, 7.0);
/// assert_eq!(loss.backward(&[&x])?[0].to_vec1::<f64>()?, [1.0, 2.0, 3.0]);
/// # anyhow::Ok(())
/// ```
#[derive(Clone)]
#[must_use = "an op records a new Var, and changes none"]
pub struct Var(pub(crate) Arc<Node>);

pub(crate) type Inputs = SmallVec<[Var; 3]>;

pub(crate) struct Node {
    /// Greater than the ids of all inputs, so sorting by id is a topological sort.
    pub(crate) id: u64,
    pub(crate) op: Op,
    pub(crate) inputs: Inputs,
    pub(crate) shape: Dims,
    pub(crate) dtype: DType,
    pub(crate) device: Device,
    pub(crate) at: Loc,
    /// The op that this belongs to the derivative of.
    pub(crate) derivative_of: Option<&'static str>,
    /// A constant that the user does not hold, such as the number in an expression, and so may be
    /// folded.
    pub(crate) is_literal: bool,
    pub(crate) label: OnceLock<Box<str>>,
    /// How a ragged batch divides the rows, for error reports.
    pub(crate) sequences: OnceLock<Box<Segments>>,
}

/// Dropping a chain of nodes must not recurse: a loss over a big batch can be a million nodes long.
impl Drop for Node {
    fn drop(&mut self) {
        let mut pending = std::mem::take(&mut self.inputs);
        while let Some(Var(mut node)) = pending.pop() {
            if let Some(node) = Arc::get_mut(&mut node) {
                pending.append(&mut node.inputs);
            }
        }
    }
}

/// Making.
impl Var {
    /// A leaf with the values of `tensor`, which is not copied. Its dtype must be f32, f64, u8, u32
    /// or i64.
    ///
    /// ```
    /// use tinsmith_grad::{Device, Tensor, Var};
    ///
    /// let x = Var::new(Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?);
    /// assert_eq!(x.shape(), [2, 2]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn new(tensor: Tensor) -> Var {
        let at = here();
        if let Err(error) = admit("leaf", tensor.dims(), tensor.dtype(), at) {
            return Var::invalid(error);
        }
        let (shape, dtype) = (Dims::from_slice(tensor.dims()), tensor.dtype());
        let device = tensor.device().clone();
        // The tensor's own history is candle's business; keeping it would keep its graph alive.
        let leaf = Op::Leaf(Leaf::tensor(tensor.detach()));
        Var::node(leaf, Inputs::new(), shape, dtype, device, at)
    }

    /// A leaf with `data`, row-major, in `shape`. On the CPU the vector is taken over, not copied.
    ///
    /// ```
    /// use tinsmith_grad::{Device, Var};
    ///
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.sum_dims(&[0]).to_vec::<f32>()?, [5.0, 7.0, 9.0]);
    /// assert!(Var::from_vec(vec![1f32], &[2], &Device::Cpu).error().is_some());
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn from_vec<T: Element>(data: Vec<T>, shape: &[usize], device: &Device) -> Var {
        let at = here();
        if let Err(error) = fills("from_vec", data.len(), shape, at) {
            return Var::invalid(error);
        }
        match Tensor::from_vec(data, shape, device) {
            Ok(tensor) => attribute(at, || Var::new(tensor)),
            Err(e) => Var::invalid(Error::backend("from_vec", e, at)),
        }
    }

    /// A leaf on the CPU with `data`, row-major, in `shape`. Floats are not copied: the leaf shares
    /// their memory, and only an op that goes through candle takes a copy.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tinsmith_grad::Var;
    ///
    /// let logprobs: Arc<[f32]> = vec![-1.0, -0.5, -2.0].into();
    /// let loss = -Var::from_arc(&logprobs, &[3]).sum();
    /// assert_eq!(loss.item()?, 3.5);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn from_arc<T: Element>(data: &Arc<[T]>, shape: &[usize]) -> Var {
        let at = here();
        let leaf = match T::shared(data) {
            Some(SharedFloats::F32(data)) => Leaf::F32(Shared(data)),
            Some(SharedFloats::F64(data)) => Leaf::F64(Shared(data)),
            None => return Var::from_vec(data.to_vec(), shape, &Device::Cpu),
        };
        if let Err(error) = fills("from_arc", data.len(), shape, at) {
            return Var::invalid(error);
        }
        let (shape, device) = (Dims::from_slice(shape), Device::Cpu);
        Var::node(Op::Leaf(leaf), Inputs::new(), shape, T::DTYPE, device, at)
    }

    /// `value` in every element. No memory is taken for it.
    ///
    /// ```
    /// use tinsmith_grad::{DType, Device, Var};
    ///
    /// assert_eq!(Var::full(0.5, &[2, 2], DType::F64, &Device::Cpu).sum().item()?, 2.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn full(value: f64, shape: &[usize], dtype: DType, device: &Device) -> Var {
        let at = here();
        match admit("full", shape, dtype, at) {
            Ok(()) => Var::constant(value, shape, dtype, device, false, at),
            Err(error) => Var::invalid(error),
        }
    }

    /// Zeros; see [`full`](Var::full).
    #[track_caller]
    pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Var {
        Var::full(0.0, shape, dtype, device)
    }

    /// Ones; see [`full`](Var::full).
    #[track_caller]
    pub fn ones(shape: &[usize], dtype: DType, device: &Device) -> Var {
        Var::full(1.0, shape, dtype, device)
    }

    /// A constant number that takes the dtype and device of whatever it is combined with.
    ///
    /// ```
    /// use tinsmith_grad::{DType, Device, Var};
    ///
    /// let x = Var::ones(&[3], DType::F32, &Device::Cpu);
    /// assert_eq!((Var::scalar(2.0) - &x).dtype(), DType::F32);
    /// ```
    #[track_caller]
    pub fn scalar(value: f64) -> Var {
        Var::full(value, &[], DType::F64, &Device::Cpu)
    }

    #[track_caller]
    pub(crate) fn literal(value: f64, shape: &[usize], dtype: DType, device: &Device) -> Var {
        Var::constant(value, shape, dtype, device, true, here())
    }

    #[track_caller]
    pub(crate) fn full_like(&self, value: f64) -> Var {
        Var::literal(value, self.shape(), self.dtype(), self.device())
    }

    fn constant(
        value: f64,
        shape: &[usize],
        dtype: DType,
        device: &Device,
        is_literal: bool,
        at: Loc,
    ) -> Var {
        let op = Op::Full(Number::new(value));
        let shape = Dims::from_slice(shape);
        Var::new_node(op, Inputs::new(), shape, dtype, device.clone(), at, is_literal)
    }
}

/// Asking. Nothing here evaluates.
impl Var {
    /// The shape, outermost dimension first; empty for a scalar and for a `Var` that carries an
    /// error.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.shape.len()
    }

    /// The number of elements.
    pub fn elem_count(&self) -> usize {
        elem_count(&self.0.shape)
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Whether the elements can be computed with, and so have gradients.
    pub(crate) fn is_float(&self) -> bool {
        matches!(self.dtype(), DType::F32 | DType::F64)
    }

    /// Where the values live and the op will run.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The error that this `Var` carries, if an op before it could not be recorded.
    pub fn error(&self) -> Option<&Error> {
        match &self.0.op {
            Op::Invalid(error) => Some(&error.0),
            _ => None,
        }
    }

    /// Gives this node a name that error reports and graph dumps show, and returns it. The first
    /// name stays.
    ///
    /// ```
    /// use tinsmith_grad::{DType, Device, Var, check_finite};
    ///
    /// let x = Var::zeros(&[2], DType::F32, &Device::Cpu);
    /// let bad = x.log().label("log of the ratio");
    /// assert!(check_finite(&[&bad]).unwrap_err().to_string().contains("`log of the ratio`"));
    /// ```
    pub fn label(&self, name: impl Into<String>) -> Var {
        let _ = self.0.label.set(name.into().into_boxed_str());
        self.clone()
    }

    /// The number in every element, if this is a constant that may be folded.
    pub(crate) fn literal_value(&self) -> Option<f64> {
        match self.0.op {
            Op::Full(value) if self.0.is_literal => Some(value.get()),
            _ => None,
        }
    }

    pub(crate) fn label_text(&self) -> Option<String> {
        self.0.label.get().map(|label| label.to_string())
    }
}

/// Recording, for the ops of this crate.
impl Var {
    pub(crate) fn node(
        op: Op,
        inputs: Inputs,
        shape: Dims,
        dtype: DType,
        device: Device,
        at: Loc,
    ) -> Var {
        Var::new_node(op, inputs, shape, dtype, device, at, false)
    }

    fn new_node(
        op: Op,
        inputs: Inputs,
        shape: Dims,
        dtype: DType,
        device: Device,
        at: Loc,
        is_literal: bool,
    ) -> Var {
        // Relaxed is enough: whoever holds an input already sees the counter's state from when it
        // was made.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Var(Arc::new(Node {
            id,
            op,
            inputs,
            shape,
            dtype,
            device,
            at,
            derivative_of: derivative_of(),
            is_literal,
            label: OnceLock::new(),
            sequences: OnceLock::new(),
        }))
    }

    /// The same op, shape and dtype, for who computes it on operands that are not its inputs.
    pub(crate) fn without_inputs(&self) -> Var {
        self.on(Inputs::new(), self.shape())
    }

    /// The same op on other inputs, which give it `shape`.
    pub(crate) fn on(&self, inputs: Inputs, shape: &[usize]) -> Var {
        Var::node(
            self.0.op.clone(),
            inputs,
            Dims::from_slice(shape),
            self.dtype(),
            self.device().clone(),
            self.0.at,
        )
    }

    #[track_caller]
    pub(crate) fn invalid(error: Error) -> Var {
        let at = here();
        Var::node(
            Op::Invalid(Shared(Arc::new(error))),
            Inputs::new(),
            Dims::new(),
            DType::F32,
            Device::Cpu,
            at,
        )
    }

    /// Records an op over `inputs`: an operand's error is passed on, and `infer` tells the op,
    /// shape and dtype.
    #[track_caller]
    pub(crate) fn apply<'a>(
        name: &'static str,
        inputs: impl IntoIterator<Item = &'a Var>,
        infer: impl FnOnce(Loc) -> Result<(Op, Dims, DType)>,
    ) -> Var {
        let at = here();
        let inputs: Inputs = inputs.into_iter().cloned().collect();
        if let Some(bad) = inputs.iter().find(|v| v.error().is_some()) {
            return bad.clone();
        }
        let device = inputs[0].device().clone();
        if let Some(other) = inputs.iter().find(|v| !v.device().same_device(&device)) {
            let devices = format!("{:?} and {:?}", device.location(), other.device().location());
            return Var::invalid(Error::Device { op: name, devices, at });
        }
        let inferred = infer(at);
        match inferred.and_then(|made| admit(name, &made.1, made.2, at).map(|()| made)) {
            Ok((op, shape, dtype)) => Var::node(op, inputs, shape, dtype, device, at),
            Err(error) => Var::invalid(error),
        }
    }

    /// The error of an argument that does not fit this operand.
    pub(crate) fn refuses(&self, op: &'static str, why: String, at: Loc) -> Error {
        let why = format!("{why}; the operand is {:?}", self.shape());
        Error::Argument { op, why, at }
    }

    /// As [`apply`](Var::apply) for ops whose arguments are numbers only and whose dtype is their
    /// input's.
    #[track_caller]
    pub(crate) fn apply_one(
        &self,
        name: &'static str,
        infer: impl FnOnce(&[usize]) -> std::result::Result<(Op, Dims), String>,
    ) -> Var {
        Var::apply(name, [self], |at| match infer(self.shape()) {
            Ok((op, shape)) => Ok((op, shape, self.dtype())),
            Err(why) => Err(self.refuses(name, why, at)),
        })
    }
}

fn fills(op: &'static str, values: usize, shape: &[usize], at: Loc) -> Result<()> {
    if checked_count(shape) == Some(values) {
        return Ok(());
    }
    let why = format!("{values} values do not fill shape {shape:?}");
    Err(Error::Argument { op, why, at })
}

/// Refuses what no `Var` can be.
fn admit(op: &'static str, shape: &[usize], dtype: DType, at: Loc) -> Result<()> {
    if !matches!(dtype, DType::F32 | DType::F64 | DType::U8 | DType::U32 | DType::I64) {
        return Err(Error::DType {
            op,
            dtypes: vec![dtype],
            why: "supported dtypes are f32, f64, u8, u32 and i64",
            at,
        });
    }
    match checked_count(shape) {
        Some(_) => Ok(()),
        None => Err(Error::Argument {
            op,
            why: format!("no memory holds as many elements as shape {shape:?} has"),
            at,
        }),
    }
}

/// A `Var` that carries `error`: how a function that returns a `Var` refuses its arguments.
impl From<Error> for Var {
    fn from(error: Error) -> Var {
        Var::invalid(error)
    }
}

impl From<Tensor> for Var {
    #[track_caller]
    fn from(tensor: Tensor) -> Var {
        Var::new(tensor)
    }
}

/// One line: the op, shape, dtype, label, and the line that recorded it. The values are not
/// computed.
impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = self.error() {
            return write!(f, "Var(error: {error})");
        }
        write!(f, "Var({}", self.0.op.name())?;
        if let Some(label) = self.0.label.get() {
            write!(f, " `{label}`")?;
        }
        write!(f, " {:?} {:?} at {})", self.shape(), self.dtype(), self.0.at)
    }
}
