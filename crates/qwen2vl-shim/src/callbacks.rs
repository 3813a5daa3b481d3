//! What shim.cpp calls: products of compressed weights and attention.

use std::ffi::{c_int, c_void};
use std::ptr;

use qwen2vl_kernels::{
    Attention, Kind, Norm, PagedAttention, Product, Rotation, Rows, Weights, attend, attend_paged,
    is_head_supported, is_paged_head_supported, multiply,
};

use crate::kernels::Context;

/// Weights as shim.cpp describes them.
#[repr(C)]
pub(crate) struct RawWeights {
    data: *const u8,
    scales: *const u8,
    zero_points: *const u8,
    n: u64,
    k: u64,
    group: u64,
    kind: u32,
}

/// A product as shim.cpp describes it; what is null is left out.
#[repr(C)]
pub(crate) struct RawProduct {
    weights: *const c_void,
    times: *const c_void,
    bias: *const f32,
    beta: *const f32,
    plus: *const f32,
    cos: *const f32,
    sin: *const f32,
    head: u64,
    out: *mut f32,
}

/// Rows as shim.cpp describes them; what is null is left out.
#[repr(C)]
pub(crate) struct RawRows {
    x: *const f32,
    m: u64,
    epsilon: *const f32,
    centered: u32,
    norm_weight: *const f32,
    norm_bias: *const f32,
}

/// Attention as shim.cpp describes it.
#[repr(C)]
pub(crate) struct RawAttention {
    qkv: *const f32,
    cos: *const f32,
    sin: *const f32,
    n: u64,
    heads: u64,
    width: u64,
    scale: f32,
    out: *mut f32,
}

/// Paged attention as shim.cpp describes it.
#[repr(C)]
pub(crate) struct RawPagedAttention {
    queries: *const f32,
    keys: *const f32,
    values: *const f32,
    first: u64,
    n: u64,
    layer: u64,
    heads: u64,
    kv_heads: u64,
    width: u64,
    scale: f32,
    out: *mut f32,
}

/// What shim.cpp calls.
#[repr(C)]
pub(crate) struct RawKernels {
    context: *const c_void,
    prepare: unsafe extern "C" fn(*const c_void, *const RawWeights) -> *mut c_void,
    multiply: unsafe extern "C" fn(*const c_void, *const RawProduct, u64, *const RawRows),
    release: unsafe extern "C" fn(*const c_void, *mut c_void),
    attends: unsafe extern "C" fn(*const c_void, u64, c_int) -> c_int,
    attend: unsafe extern "C" fn(*const c_void, *const RawAttention),
    attend_paged: unsafe extern "C" fn(*const c_void, *const RawPagedAttention),
}

impl RawKernels {
    /// Valid as long as `context`.
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            context: ptr::from_ref(context).cast(),
            prepare,
            multiply: products,
            release,
            attends,
            attend: attention,
            attend_paged: paged_attention,
        }
    }
}

impl RawWeights {
    pub(crate) const EMPTY: Self = Self {
        data: ptr::null(),
        scales: ptr::null(),
        zero_points: ptr::null(),
        n: 0,
        k: 0,
        group: 0,
        kind: u32::MAX,
    };

    /// `None` for weights that the kernels are not made for.
    ///
    /// # Safety
    ///
    /// It was filled by shim.cpp, which has compared the sizes of weights, scales and zero points with the shape; what it
    /// points to stays valid for the lifetime.
    pub(crate) unsafe fn checked<'a>(&self) -> Option<Weights<'a>> {
        let kind = match self.kind {
            0 => Kind::U4,
            1 => Kind::U8,
            2 => Kind::I8,
            _ => return None,
        };
        let (n, k, group) = (self.n as usize, self.k as usize, self.group as usize);
        let (values, groups) = (n * k, n * k / group.max(1));
        let packed = |n: usize| if kind == Kind::U4 { n.div_ceil(2) } else { n };
        // SAFETY: as the caller vouches.
        let slice = |data: *const u8, n: usize| unsafe { std::slice::from_raw_parts(data, n) };
        let points = (!self.zero_points.is_null()).then(|| slice(self.zero_points, packed(groups)));
        let data = slice(self.data, packed(values));
        Weights::new(kind, (n, k, group), data, slice(self.scales, groups * 2), points).ok()
    }
}

/// Checks weights; null for those that are left to OpenVINO.
unsafe extern "C" fn prepare(_: *const c_void, raw: *const RawWeights) -> *mut c_void {
    // SAFETY: shim.cpp hands a description over whose pointers stay valid until `release`.
    let weights: Option<Weights<'static>> = unsafe { (*raw).checked() };
    weights.map_or(ptr::null_mut(), |weights| Box::into_raw(Box::new(weights)).cast())
}

unsafe extern "C" fn products(context: *const c_void, raw: *const RawProduct, n: u64, rows: *const RawRows) {
    // SAFETY: the context outlives the model; weights are what `prepare` made, of one `k`; rows, outputs and what is added to
    // them or turns them are tensors of `m` rows, a bias has a value for each column and a norm's weight one for each of `k`.
    let (context, mut products, rows) = unsafe {
        let m = (*rows).m as usize;
        let context = &*context.cast::<Context>();
        let weights = |raw: *const c_void| raw.cast::<Weights<'static>>().as_ref();
        let slice = |data: *const f32, n| (!data.is_null()).then(|| std::slice::from_raw_parts(data, n));
        let rotation = |raw: &RawProduct| {
            let width = raw.head as usize;
            Some(Rotation { width, cos: slice(raw.cos, m * width)?, sin: slice(raw.sin, m * width)? })
        };
        let product = |raw: &RawProduct| {
            let of = weights(raw.weights)?;
            Some(Product {
                weights: of,
                bias: slice(raw.bias, of.n()),
                beta: raw.beta.as_ref().copied(),
                times: weights(raw.times),
                plus: slice(raw.plus, m * of.n()),
                rotation: rotation(raw),
                out: std::slice::from_raw_parts_mut(raw.out, m * of.n()),
            })
        };
        let products: Vec<Product<'_>> =
            std::slice::from_raw_parts(raw, n as usize).iter().filter_map(product).collect();
        let k = products.first().map_or(0, |p| p.weights.k());
        let norm = (*rows).epsilon.as_ref().map(|epsilon| Norm {
            centered: (*rows).centered != 0,
            epsilon: *epsilon,
            weight: slice((*rows).norm_weight, k),
            bias: slice((*rows).norm_bias, k),
        });
        (context, products, Rows { x: std::slice::from_raw_parts((*rows).x, m * k), norm })
    };
    if !context.run(|scratch, pool| multiply(rows, &mut products, scratch, pool)) {
        products.iter_mut().for_each(|product| product.out.fill(f32::NAN));
    }
}

unsafe extern "C" fn attends(_: *const c_void, width: u64, paged: c_int) -> c_int {
    let is = if paged == 0 { is_head_supported } else { is_paged_head_supported };
    c_int::from(is(width as usize))
}

unsafe extern "C" fn attention(context: *const c_void, raw: *const RawAttention) {
    // SAFETY: the context outlives the model; the operation has compared its tensors' sizes with these numbers.
    let (context, raw, qkv, rotation, out) = unsafe {
        let raw = &*raw;
        let (n, width) = (raw.n as usize, raw.width as usize);
        let values = n * raw.heads as usize * width;
        let slice = |data: *const f32, n: usize| std::slice::from_raw_parts(data, n);
        let rotation = Rotation { width, cos: slice(raw.cos, n * width), sin: slice(raw.sin, n * width) };
        let out = std::slice::from_raw_parts_mut(raw.out, values);
        (&*context.cast::<Context>(), raw, slice(raw.qkv, 3 * values), rotation, out)
    };
    let (heads, width, scale, rotation) = (raw.heads as usize, rotation.width, raw.scale, Some(rotation));
    let attention = Attention { qkv, heads, width, scale, rotation, out: &mut *out };
    if !context.run(|scratch, pool| attend(attention, scratch, pool)) {
        out.fill(f32::NAN);
    }
}

unsafe extern "C" fn paged_attention(context: *const c_void, raw: *const RawPagedAttention) {
    // SAFETY: the context outlives the model; rows are results of so many columns, or inputs whose sizes were compared.
    let (context, raw, queries, keys, values, out) = unsafe {
        let raw = &*raw;
        let of = |heads: u64| (raw.n * heads * raw.width) as usize;
        let slice = |data: *const f32, n: usize| std::slice::from_raw_parts(data, n);
        let out = std::slice::from_raw_parts_mut(raw.out, of(raw.heads));
        let (keys, values) = (slice(raw.keys, of(raw.kv_heads)), slice(raw.values, of(raw.kv_heads)));
        (&*context.cast::<Context>(), raw, slice(raw.queries, of(raw.heads)), keys, values, out)
    };
    let done = context.run_on_cache(|cache, sequences, pool| {
        let (first, layer, heads) = (raw.first as usize, raw.layer as usize, raw.heads as usize);
        let attention =
            PagedAttention { queries, keys, values, first, layer, heads, scale: raw.scale, out: &mut *out };
        attend_paged(attention, cache, sequences, pool);
    });
    if !done {
        out.fill(f32::NAN);
    }
}

unsafe extern "C" fn release(_: *const c_void, weights: *mut c_void) {
    // SAFETY: made by `prepare`, released once.
    drop(unsafe { Box::from_raw(weights.cast::<Weights<'static>>()) });
}
