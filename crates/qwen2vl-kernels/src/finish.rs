//! What is done to a panel's results behind the product: the same for each instruction set, on its vectors.

use crate::panel::PANEL;

/// Rows of a panel's results, and what becomes of them; what is `None` is left out.
pub(crate) struct Finish<'a> {
    pub acc: &'a [[f32; PANEL]],
    /// Added to each row.
    pub bias: Option<&'a [f32; PANEL]>,
    /// As [`crate::Product::beta`].
    pub beta: Option<f32>,
    /// What rows are multiplied with.
    pub factors: Option<&'a [[f32; PANEL]]>,
    /// What is added to rows, `n` values apart.
    pub plus: Option<*const f32>,
    /// Where they are written, `n` values apart.
    pub out: *mut f32,
    pub n: usize,
}

/// `exp(x)` in the way of Cephes' expf.
pub(crate) mod exponential {
    /// What lies beyond would not give a normal number; as an addend of 1 it is 0 or infinite enough.
    pub(crate) const RANGE: [f32; 2] = [-87.0, 88.0];
    /// The natural logarithm of 2, in two parts.
    pub(crate) const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// Its polynomial but for the last terms, the highest power first.
    pub(crate) const POLYNOMIAL: [f32; 6] =
        [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
}

/// Defines `finish` where `Floats` and what is done with them are those of an instruction set.
macro_rules! define_finish {
    ($features:literal) => {
        /// Writes rows: each value plus its bias, then `y * sigmoid(beta * y)`, then times its factor, then plus another.
        ///
        /// # Safety
        ///
        /// The processor is supported; there are as many rows of factors, of what is added, and to write to.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn finish(of: &$crate::finish::Finish<'_>) {
            for (row, y) in of.acc.iter().enumerate() {
                for i in (0..y.len()).step_by(LANES) {
                    // SAFETY: a panel is whole vectors; the caller vouches for the rest.
                    unsafe {
                        let at = |values: &[f32]| load(values.as_ptr().add(i));
                        let mut v = at(y);
                        if let Some(bias) = of.bias {
                            v = add(v, at(bias));
                        }
                        if let Some(beta) = of.beta {
                            v = div(v, add(exp(mul(v, splat(-beta))), splat(1.0)));
                        }
                        if let Some(factors) = of.factors {
                            v = mul(v, at(&factors[row]));
                        }
                        if let Some(plus) = of.plus {
                            v = add(v, load(plus.add(row * of.n + i)));
                        }
                        store(of.out.add(row * of.n + i), v);
                    }
                }
            }
        }

        /// e to the power of each, within 2 units of the last place.
        #[inline]
        #[target_feature(enable = $features)]
        fn exp(x: Floats) -> Floats {
            use $crate::finish::exponential::{LN_2, POLYNOMIAL, RANGE};
            let x = min(splat(RANGE[1]), max(splat(RANGE[0]), x));
            let n = rounded(mul(x, splat(std::f32::consts::LOG2_E)));
            let x = fnmadd(n, splat(LN_2[1]), fnmadd(n, splat(LN_2[0]), x));
            let [p, others @ ..] = POLYNOMIAL;
            let mut p = splat(p);
            for c in others {
                p = fmadd(p, x, splat(c));
            }
            scaled(fmadd(mul(p, x), x, add(x, splat(1.0))), n)
        }
    };
}

pub(crate) use define_finish;
