//! How the model runs, as flags.

use clap::{Args, ValueEnum};
use qwen2vl_pipeline::{AnnotatorBuilder, EngineKind, KvCachePrecision, Precision};

use super::cache::parse_bytes;
use super::memory::MemoryArgs;

#[derive(Debug, Args)]
pub struct EngineArgs {
    /// OpenVINO's device: CPU, GPU, NPU, AUTO, … Everything but CPU runs OpenVINO's own kernels
    #[arg(long, value_name = "NAME", default_value = "CPU", env = "QWEN2VL_DEVICE")]
    pub device: String,
    /// Inference threads [default: all cores that this process may use]
    #[arg(long, value_name = "N", env = "QWEN2VL_THREADS")]
    pub threads: Option<usize>,
    /// Numeric precision: fast is the device's own choice, f32 does not depend on the CPU and is slower
    #[arg(long, value_enum, default_value_t = PrecisionArg::Fast, env = "QWEN2VL_PRECISION")]
    pub precision: PrecisionArg,
    /// How the language model runs: paged serves many requests in one step and needs a C++ compiler once, stateful each by
    /// itself; auto is paged where that can be had
    #[arg(long, value_enum, default_value_t = EngineArg::Auto, env = "QWEN2VL_ENGINE")]
    pub engine: EngineArg,
    /// The most memory of the paged engine's KV cache, as 1GiB; taken as requests need it
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, env = "QWEN2VL_KV_CACHE")]
    pub kv_cache: Option<u64>,
    /// How keys and values are kept: auto is 8 bits, with f32 precision 32
    #[arg(long, value_enum, default_value_t = KvCacheArg::Auto, env = "QWEN2VL_KV_CACHE_PRECISION")]
    pub kv_cache_precision: KvCacheArg,
    /// The most of the KV cache kept for prompts to come that begin as earlier ones did; 0 shares nothing between requests
    /// [default: 256MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, env = "QWEN2VL_PREFIX_CACHE")]
    pub prefix_cache: Option<u64>,
    #[command(flatten)]
    pub memory: MemoryArgs,
}

impl EngineArgs {
    /// Puts them into a builder.
    pub fn apply(&self, mut builder: AnnotatorBuilder) -> AnnotatorBuilder {
        builder = self.memory.apply(builder);
        builder = builder
            .device(&self.device)
            .precision(self.precision.into())
            .engine(self.engine.into())
            .kv_cache_precision(self.kv_cache_precision.into());
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        if let Some(bytes) = self.kv_cache {
            builder = builder.kv_cache_bytes(bytes);
        }
        if let Some(bytes) = self.prefix_cache {
            builder = builder.prefix_cache_bytes(bytes);
        }
        builder
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PrecisionArg {
    /// The device's own choice.
    Fast,
    /// f32 throughout.
    F32,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::Fast => Self::Fast,
            PrecisionArg::F32 => Self::F32,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EngineArg {
    /// Paged where it can be had.
    Auto,
    /// Many requests in one step.
    Paged,
    /// Each request by itself.
    Stateful,
}

impl From<EngineArg> for EngineKind {
    fn from(arg: EngineArg) -> Self {
        match arg {
            EngineArg::Auto => Self::Auto,
            EngineArg::Paged => Self::Paged,
            EngineArg::Stateful => Self::Stateful,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum KvCacheArg {
    /// By the precision.
    Auto,
    /// Values in 4 bits, keys in 8: a seventh less than u8.
    U4,
    /// 8 bits.
    U8,
    /// 16-bit floats.
    F16,
    /// 32-bit floats.
    F32,
}

impl From<KvCacheArg> for KvCachePrecision {
    fn from(arg: KvCacheArg) -> Self {
        match arg {
            KvCacheArg::Auto => Self::Auto,
            KvCacheArg::U4 => Self::U4,
            KvCacheArg::U8 => Self::U8,
            KvCacheArg::F16 => Self::F16,
            KvCacheArg::F32 => Self::F32,
        }
    }
}
