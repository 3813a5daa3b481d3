//! `qwen2vl cache`, and what annotating keeps, as flags.

use clap::{Args, Subcommand, ValueEnum};
use qwen2vl_pipeline::{CacheFolder, VisionCacheOptions};

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Say what is in the cache folder: embeddings of images, compiled models, unpacked packages, OpenVINO
    Info(CacheInfoArgs),
    /// Remove what would be made again: embeddings of images, compiled models, unpacked packages
    Clear(CacheClearArgs),
}

#[derive(Debug, Args)]
pub struct CacheInfoArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CacheClearArgs {
    /// What to remove
    #[arg(value_enum, value_name = "WHAT", default_value_t = Clearable::Vision)]
    pub what: Clearable,
    /// Print what was removed as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What can be removed from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Clearable {
    /// Embeddings of images and videos
    Vision,
    /// Compiled models, which the next start compiles again
    Compiled,
    /// Unpacked packages, which are unpacked again when they are opened; not while something opens one
    Packages,
    /// All three
    All,
}

impl Clearable {
    /// The folders that are meant.
    pub fn folders(self) -> &'static [CacheFolder] {
        match self {
            Self::Vision => &[CacheFolder::Vision],
            Self::Compiled => &[CacheFolder::Compiled],
            Self::Packages => &[CacheFolder::Packages],
            Self::All => &[CacheFolder::Vision, CacheFolder::Compiled, CacheFolder::Packages],
        }
    }
}

/// What is kept for other questions about the same images.
#[derive(Debug, Args)]
pub struct VisionCacheArgs {
    /// Compute every image anew: look up no embeddings and keep none, neither in memory nor on disk
    #[arg(long, env = "QWEN2VL_NO_VISION_CACHE", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_vision_cache: bool,
    /// Most disk space for embeddings of images and videos, with which another question about them costs no vision run:
    /// bytes, or with a unit, as 500MB or 4GiB; 0 keeps them in memory alone
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "4GiB",
        value_parser = parse_bytes,
        env = "QWEN2VL_VISION_CACHE_SIZE"
    )]
    pub vision_cache_size: u64,
}

impl VisionCacheArgs {
    /// The builder's options.
    pub fn options(&self) -> VisionCacheOptions {
        match self.no_vision_cache {
            true => VisionCacheOptions::off(),
            false => VisionCacheOptions::default().disk_bytes(self.vision_cache_size),
        }
    }
}

/// A number of bytes, with a unit or without.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..unit_at], text[unit_at..].trim());
    let factor: Option<u64> = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "tb" => Some(1_000_000_000_000),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "t" | "tib" => Some(1 << 40),
        _ => None,
    };
    let bytes = match number.parse::<u64>() {
        Ok(number) => factor.and_then(|factor| number.checked_mul(factor)),
        Err(_) => {
            let bytes = number.parse::<f64>().ok().zip(factor).map(|(number, factor)| number * factor as f64);
            bytes.filter(|bytes| *bytes < u64::MAX as f64).map(|bytes| bytes.round() as u64)
        }
    };
    bytes.ok_or_else(|| "expected a number of bytes, or one with a unit, as 500MB or 4GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_a_thousand_and_of_1024() {
        for (text, want) in [
            ("0", 0),
            ("4294967296", 1 << 32),
            ("12 b", 12),
            ("500MB", 500_000_000),
            ("500mib", 500 << 20),
            ("4GiB", 4 << 30),
            ("4g", 4 << 30),
            ("1.5k", 1536),
            ("2 TB", 2_000_000_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(want), "{text}");
        }
        for bad in
            ["", "lots", "GiB", "-1", "4 GB of it", "1e9", "1.2.3", "99999999999999999999", "99999999TiB"]
        {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
