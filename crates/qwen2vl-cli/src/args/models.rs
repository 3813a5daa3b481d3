//! `qwen2vl model`, as flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Fetch a model into Spark NLP's cache, or one of the hub's into the hub's; what is there already is only found
    Fetch(ModelFetchArgs),
    /// List the Qwen2-VL models that lie here
    List(ModelListArgs),
    /// Say what exactly is in a model: engine, sizes, precisions, parameters, what is missing or odd
    Info(ModelInfoArgs),
    /// Read every byte of a model and compare all checksums that there are
    Verify(ModelVerifyArgs),
}

#[derive(Debug, Args)]
pub struct ModelFetchArgs {
    /// What to fetch.
    #[arg(
        value_name = "MODEL",
        default_value = "qwen2_vl_2b_instruct_int4",
        help = "A published name (NAME or NAME@LANG), the full name of a published file, a URL of a zip, a hub \
                repository (OWNER/REPO, hf:OWNER/REPO@REVISION), or a zip or folder that lies here"
    )]
    pub model: String,
    /// What the zip's SHA-256 has to be
    #[arg(long, value_name = "HEX", env = "QWEN2VL_MODEL_SHA256")]
    pub sha256: Option<String>,
    /// What the zip's MD5 has to be [default: the catalogue's, if it has one]
    #[arg(long, value_name = "HEX", env = "QWEN2VL_MODEL_MD5")]
    pub md5: Option<String>,
    /// Print what was done as one JSON object instead of the path
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub source: ModelSourceArgs,
}

#[derive(Debug, Args)]
pub struct ModelListArgs {
    /// List the published ones of the catalogue instead
    #[arg(long)]
    pub remote: bool,
    /// Print one JSON array
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub source: ModelSourceArgs,
}

#[derive(Debug, Args)]
pub struct ModelInfoArgs {
    /// A path, or the name of a fetched model [default: the embedded demo model]
    #[arg(value_name = "MODEL", env = "QWEN2VL_MODEL")]
    pub model: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ModelVerifyArgs {
    /// A path, or the name of a fetched model [default: the embedded demo model]
    #[arg(value_name = "MODEL", env = "QWEN2VL_MODEL")]
    pub model: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Where models come from and go to.
#[derive(Debug, Default, Args)]
pub struct ModelSourceArgs {
    /// The cache for published models [default: ~/cache_pretrained, Spark NLP's]
    #[arg(long, value_name = "DIR", env = "QWEN2VL_MODELS_DIR")]
    pub dir: Option<PathBuf>,
    /// The language of a published name [default: any]
    #[arg(long, value_name = "LANG", env = "QWEN2VL_MODEL_LANG")]
    pub lang: Option<String>,
    /// Where catalogue and published zips are [default: Spark NLP's public bucket]
    #[arg(long, value_name = "URL", env = "QWEN2VL_MODEL_BASE_URL")]
    pub base_url: Option<String>,
    /// Use what is here, ask no server
    #[arg(long, env = "QWEN2VL_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub offline: bool,
}

impl ModelSourceArgs {
    /// As the environment alone has them, for commands that only look a fetched model up.
    pub fn from_env() -> Self {
        let dir = std::env::var_os("QWEN2VL_MODELS_DIR").filter(|v| !v.is_empty()).map(PathBuf::from);
        let lang = std::env::var("QWEN2VL_MODEL_LANG").ok().filter(|v| !v.is_empty());
        Self { dir, lang, base_url: None, offline: true }
    }
}
