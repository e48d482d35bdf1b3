use candle_core::DType;

use super::composite;
use crate::error::Error;
use crate::graph::caller::here;
use crate::graph::dims::Dims;
use crate::graph::op::{Number, Op, UnaryOp};
use crate::graph::table::unary_ops;
use crate::graph::var::{Inputs, Var};

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $Op:ident = $method:ident($x:ident $(, $($p:ident),+)?) {
        example: ($($argument:literal),*) [$($of:literal),+] => [$($is:literal),+],
        $($columns:tt)*
    })*) => {
        /// Elementwise functions of one operand, f32 or f64; the shape stays. `g` is the gradient
        /// of the result.
        impl Var {
            $(
                $(#[$doc])*
                ///
                /// ```
                /// # use tinsmith_grad::{Device, Tensor, Var};
                #[doc = concat!("let x = Var::new(Tensor::new(&[", stringify!($($of),+), "], &Device::Cpu)?);")]
                #[doc = concat!("assert_eq!(x.", stringify!($method($($argument),*)), ".to_vec::<f64>()?, [",
                    stringify!($($is),+), "]);")]
                /// # anyhow::Ok(())
                /// ```
                #[track_caller]
                pub fn $method(&self $($(, $p: f64)+)?) -> Var {
                    self.unary(UnaryOp::$Op $({ $($p: Number::new($p)),+ })?)
                }
            )*
        }
    };
}
unary_ops!(unary_methods);

/// Composites of elementwise functions.
impl Var {
    /// [`clamp`](Var::clamp) from below only.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![-1f64, 2.0], &[2], &Device::Cpu);
    /// assert_eq!(x.clamp_min(0.0).to_vec::<f64>()?, [0.0, 2.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn clamp_min(&self, lo: f64) -> Var {
        composite("clamp_min", &[self], || self.clamp(lo, f64::INFINITY))
    }

    /// [`clamp`](Var::clamp) from above only.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![-1f64, 2.0], &[2], &Device::Cpu);
    /// assert_eq!(x.clamp_max(0.0).to_vec::<f64>()?, [-1.0, 0.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn clamp_max(&self, hi: f64) -> Var {
        composite("clamp_max", &[self], || self.clamp(f64::NEG_INFINITY, hi))
    }

    /// x where x > 0, else 0. Gradient 0 at 0; NaN stays NaN.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![-1f64, 2.0], &[2], &Device::Cpu);
    /// assert_eq!(x.relu().to_vec::<f64>()?, [0.0, 2.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn relu(&self) -> Var {
        composite("relu", &[self], || self.le(0.0).select(0.0, self))
    }

    /// ln(1 + e^x); x itself above 20, as PyTorch. Gradient g sigmoid(x).
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![0f64, 50.0], &[2], &Device::Cpu);
    /// assert_eq!(x.softplus().to_vec::<f64>()?, [std::f64::consts::LN_2, 50.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn softplus(&self) -> Var {
        composite("softplus", &[self], || self.gt(20.0).select(self, -(-self).log_sigmoid()))
    }

    /// x sigmoid(x), also called swish (Elfwing et al., 2017).
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![0f64, 100.0], &[2], &Device::Cpu);
    /// assert_eq!(x.silu().to_vec::<f64>()?, [0.0, 100.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn silu(&self) -> Var {
        composite("silu", &[self], || self * self.sigmoid())
    }

    /// x Φ(x) by the error function: the exact GELU (Hendrycks and Gimpel, 2016).
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![0f64, 100.0], &[2], &Device::Cpu);
    /// assert_eq!(x.gelu_erf().to_vec::<f64>()?, [0.0, 100.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn gelu_erf(&self) -> Var {
        composite("gelu_erf", &[self], || {
            self * 0.5 * ((self * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0)
        })
    }

    /// The tanh approximation of GELU: x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![0f64, 100.0], &[2], &Device::Cpu);
    /// assert_eq!(x.gelu().to_vec::<f64>()?, [0.0, 100.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn gelu(&self) -> Var {
        const SQRT_2_OVER_PI: f64 =
            std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
        composite("gelu", &[self], || {
            self * 0.5 * (((self.square() * 0.044715 + 1.0) * self * SQRT_2_OVER_PI).tanh() + 1.0)
        })
    }

    /// ln(1 - e^x) for x < 0, exact at both ends (Mächler, 2012). Gradient g / (1 - e^-x).
    ///
    /// Below -ln 2 it is `log1p(-e^x)`, above `ln(-expm1 x)`; the branch that is not taken is fed a
    /// harmless number, so it contributes no NaN to the gradient.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![-1e-20f64, -1e3], &[2], &Device::Cpu);
    /// let y = x.log1mexp().to_vec::<f64>()?;
    /// assert!((y[0] - 1e-20f64.ln()).abs() < 1e-13); // 1 - e^x itself would be 0
    /// assert_eq!(y[1], 0.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn log1mexp(&self) -> Var {
        composite("log1mexp", &[self], || {
            let far = self.lt(-std::f64::consts::LN_2);
            let for_far = far.select(self, -1.0);
            let for_near = far.select(-0.5, self);
            far.select((-for_far.exp()).log1p(), (-for_near.expm1()).log())
        })
    }

    /// The values in another dtype: f32, f64, u8, u32 or i64. Gradients pass between f32 and f64; a
    /// cast to an integer dtype has none. For what rounds to another, bf16 say, and lets a gradient
    /// pass, write a [`CustomOp`](crate::CustomOp).
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1.5f64, -2.5], &[2], &Device::Cpu);
    /// assert_eq!(x.to_dtype(tinsmith_grad::DType::F32).to_vec::<f32>()?, [1.5, -2.5]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn to_dtype(&self, dtype: DType) -> Var {
        if self.dtype() == dtype {
            return self.clone();
        }
        Var::apply("to_dtype", [self], |_| Ok((Op::Cast, Dims::from_slice(self.shape()), dtype)))
    }

    /// The values in the dtype and on the device of `other`.
    #[track_caller]
    pub(crate) fn cast_like(&self, other: &Var) -> Var {
        let is_alike = self.dtype() == other.dtype() && self.device().same_device(other.device());
        if is_alike || self.error().is_some() {
            return self.clone();
        }
        let (shape, inputs) = (Dims::from_slice(self.shape()), Inputs::from_iter([self.clone()]));
        Var::node(Op::Cast, inputs, shape, other.dtype(), other.device().clone(), here())
    }

    /// The same values, cut off from the gradient: PyTorch's `detach`, a paper's `sg(x)`.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![3f64], &[1], &Device::Cpu);
    /// let loss = (&x * x.detach()).sum();
    /// assert_eq!(loss.backward(&[&x])?[0].to_vec1::<f64>()?, [3.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn detach(&self) -> Var {
        Var::apply("detach", [self], |_| {
            Ok((Op::Detach, Dims::from_slice(self.shape()), self.dtype()))
        })
    }

    #[track_caller]
    fn unary(&self, op: UnaryOp) -> Var {
        if let (UnaryOp::Neg, Some(value)) = (op, self.literal_value()) {
            return self.full_like(-value);
        }
        Var::apply(op.name(), [self], |at| {
            require_float(op.name(), &[self], at)?;
            Ok((Op::Unary(op), Dims::from_slice(self.shape()), self.dtype()))
        })
    }
}

pub(super) fn require_float(
    op: &'static str,
    operands: &[&Var],
    at: crate::Loc,
) -> Result<(), Error> {
    let dtypes: Vec<_> = operands.iter().map(|v| v.dtype()).collect();
    let why = if operands.iter().any(|v| !v.is_float()) {
        "needs f32 or f64; convert with to_dtype"
    } else if dtypes.iter().any(|d| *d != dtypes[0]) {
        "needs operands of one dtype; convert one with to_dtype"
    } else {
        return Ok(());
    };
    Err(Error::DType { op, dtypes, why, at })
}
