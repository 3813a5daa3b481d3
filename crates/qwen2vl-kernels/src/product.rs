//! What is asked for: rows, products of them, and what is done around the products.

use crate::rotation::Rotation;
use crate::weights::Weights;

/// Rows that are multiplied, and what is done to them before.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// `[m, k]`.
    pub x: &'a [f32],
    /// `None` takes them as they are.
    pub norm: Option<Norm<'a>>,
}

/// `x / sqrt(mean(x²) + epsilon) * weight + bias`, row by row: an RMS norm, or a layer norm of rows less their mean.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Whether a row's mean is taken off before.
    pub centered: bool,
    /// Keeps rows of zeros finite.
    pub epsilon: f32,
    /// `[k]`; `None` is ones.
    pub weight: Option<&'a [f32]>,
    /// `[k]`; `None` is zeros.
    pub bias: Option<&'a [f32]>,
}

impl Norm<'_> {
    /// Whether its lengths fit rows of `k` values.
    pub(crate) fn fits(&self, k: usize) -> bool {
        self.weight.iter().chain(&self.bias).all(|of| of.len() == k)
    }
}

/// A product of rows with weights, and what is done with its results: `out [m, n] = f(x [m, k] * weightsᵀ + bias)`, times `x *
/// timesᵀ`, plus `plus [m, n]`, rotated; what is `None` is left out.
#[derive(Debug)]
pub struct Product<'a> {
    /// `[n, k]`.
    pub weights: &'a Weights<'a>,
    /// Added to each row, `[n]`.
    pub bias: Option<&'a [f32]>,
    /// `f(y) = y * sigmoid(beta * y)`: SiLU with 1, quick GELU with 1.702. `None` is `f(y) = y`.
    pub beta: Option<f32>,
    /// Weights of the same shape and kind, whose product the result is multiplied with, as in a gated MLP.
    pub times: Option<&'a Weights<'a>>,
    /// Added behind it, `[m, n]`: a residual stream.
    pub plus: Option<&'a [f32]>,
    /// What is done at the end.
    pub rotation: Option<Rotation<'a>>,
    /// `[m, n]`.
    pub out: &'a mut [f32],
}

impl<'a> Product<'a> {
    /// The product alone.
    pub fn new(weights: &'a Weights<'a>, out: &'a mut [f32]) -> Self {
        Self { weights, bias: None, beta: None, times: None, plus: None, rotation: None, out }
    }

    /// Whether its lengths fit `m` rows, and its weights those that the rows were quantized for.
    pub(crate) fn fits(&self, m: usize, first: &Weights<'_>) -> bool {
        let same = |w: &Weights<'_>| w.k == first.k && w.kind.is_like(first.kind);
        let times = self.times.is_none_or(|w| {
            w.n == self.weights.n && w.kind == self.weights.kind && w.group == self.weights.group && same(w)
        });
        let bias = self.bias.is_none_or(|bias| bias.len() == self.weights.n);
        let plus = self.plus.is_none_or(|plus| plus.len() == self.out.len());
        let rotation = self.rotation.is_none_or(|rotation| rotation.fits(m, self.weights.n));
        self.out.len() == m * self.weights.n && same(self.weights) && times && bias && plus && rotation
    }
}
