//! A folder as `optimum-cli export openvino` (optimum-intel 2.2.0) writes it: four IRs with their weights, the
//! tokenizer, and the JSON files of transformers. The export for Spark NLP has the JSON files in `assets/`, and three
//! IRs more, which are code here.

use std::path::{Path, PathBuf};

use qwen2vl_runtime::{ModelConfig, ModelFiles};

use crate::configs::{chat_template, generation::GenerationFile, model::Config, processor};
use crate::ir::{Ir, Port, shape_text};
use crate::json::{read_json, read_text};
use crate::parameters::parameters;
use crate::provenance::{PackageKind, Provenance, RECORD_FILE, Record};
use crate::{Error, ModelPackage};

pub(crate) const VISION_EMBEDDINGS: &str = "openvino_vision_embeddings_model";
pub(crate) const MERGER: &str = "openvino_vision_embeddings_merger_model";
pub(crate) const TEXT_EMBEDDINGS: &str = "openvino_text_embeddings_model";
pub(crate) const LANGUAGE_MODEL: &str = "openvino_language_model";
/// The four IRs, without the extensions `.xml` and `.bin`.
pub(crate) const IRS: [&str; 4] = [VISION_EMBEDDINGS, MERGER, TEXT_EMBEDDINGS, LANGUAGE_MODEL];

pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Where the export for Spark NLP has its JSON files.
pub(crate) const ASSETS: &str = "assets/";
const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";

/// Whether a file of this name may be an IR of an export.
pub(crate) fn is_marker(name: &str) -> bool {
    name.strip_suffix(".xml").is_some_and(|stem| IRS.contains(&stem))
}

/// Whether a name, from the export's folder on, is of a file that belongs to it.
pub(crate) fn belongs(name: &str) -> bool {
    !name.strip_prefix(ASSETS).unwrap_or(name).contains('/')
}

/// Whether IRs lie in this very folder; zips of a saved annotator have the same names.
pub(crate) fn is_at(folder: &Path) -> bool {
    let is_ir = |ir: &str| {
        let mut start = [0; 4];
        let read = std::fs::File::open(folder.join(format!("{ir}.xml")))
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
        match read {
            Ok(()) => !crate::files::zip::is_zip(&start),
            // An empty IR is an error that export::open tells best.
            Err(e) => e.kind() == std::io::ErrorKind::UnexpectedEof,
        }
    };
    IRS.into_iter().any(is_ir)
}

/// Checks the names of a folder's files: an export, and whole.
pub(crate) fn check_names(path: &Path, names: &[&str]) -> Result<(), Error> {
    if !names.iter().any(|name| is_marker(name)) {
        let weights = |name: &&&str| {
            name.ends_with(".safetensors") || (name.starts_with("pytorch_model") && name.ends_with(".bin"))
        };
        return Err(match names.iter().find(weights) {
            Some(found) => Error::Checkpoint { path: path.to_owned(), found: (*found).to_owned() },
            None => Error::NotAnExport { path: path.to_owned(), expected: "openvino_language_model.xml" },
        });
    }
    let prefix = configs_prefix(names);
    let has = |file: &str| names.iter().any(|name| name.strip_prefix(prefix) == Some(file));
    let mut missing: Vec<String> = IRS
        .iter()
        .flat_map(|ir| [format!("{ir}.xml"), format!("{ir}.bin")])
        .filter(|needed| !names.contains(&needed.as_str()))
        .chain([CONFIG, TOKENIZER].into_iter().filter(|f| !has(f)).map(|f| format!("{prefix}{f}")))
        .collect();
    let any = |files: &[&str]| files.iter().any(|file| has(file));
    if !any(&[processor::IMAGE_FILE, processor::NESTED_FILE]) {
        missing.push(format!("{prefix}{}", processor::IMAGE_FILE));
    }
    if !any(chat_template::FILES) {
        missing.push(format!("a chat template ({})", chat_template::FILES.join(", ")));
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Incomplete { path: path.to_owned(), missing }) }
}

/// The folder of the JSON files within an export: its own, or `assets/`.
fn configs_prefix(names: &[&str]) -> &'static str {
    let in_assets = names.iter().any(|n| n.strip_prefix(ASSETS) == Some(CONFIG));
    if in_assets && !names.contains(&CONFIG) { ASSETS } else { "" }
}

/// Reads and checks an export folder, which came from `source`.
pub(crate) fn open(
    root: &Path,
    name: &str,
    source: &Path,
    sha256: Option<String>,
) -> Result<ModelPackage, Error> {
    let names = file_names(root)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    check_names(root, &names)?;
    let prefix = configs_prefix(&names);
    let configs = root.join(prefix);
    let weight_bytes = check_sizes(root, &configs.join(TOKENIZER))?;
    let config_path = configs.join(CONFIG);
    let config_text = read_text(&config_path)?
        .ok_or_else(|| Error::Incomplete { path: root.to_owned(), missing: vec![CONFIG.to_owned()] })?;
    let config = Config::parse(&config_path, &config_text)?;
    let model = config.model_config()?;
    check_irs(root, &model)?;
    let generation_path = configs.join(GENERATION);
    let generation_file = read_json::<GenerationFile>(&generation_path)?.unwrap_or_default();
    let generation =
        generation_file.generation_config(&generation_path, model.vocab_size, config.eos_token_ids())?;
    let stop_strings = generation_file.stop_strings(&generation_path)?;
    let (preprocess, video_preprocess) = processor::read(&configs, model.geometry, prefix == ASSETS)?;
    let record = read_json::<Record>(&root.join(RECORD_FILE))?;
    let kind = match (&record, prefix) {
        (Some(_), _) => PackageKind::SparkAnnotator,
        (None, ASSETS) => PackageKind::SparkExport,
        _ => PackageKind::OpenvinoExport,
    };
    let xml = |ir: &str| root.join(format!("{ir}.xml"));
    Ok(ModelPackage {
        name: name.to_owned(),
        root: root.to_owned(),
        files: ModelFiles {
            vision_embeddings: xml(VISION_EMBEDDINGS),
            vision_embeddings_merger: xml(MERGER),
            text_embeddings: xml(TEXT_EMBEDDINGS),
            language_model: xml(LANGUAGE_MODEL),
        },
        model,
        generation,
        stop_strings,
        preprocess,
        video_preprocess,
        tokenizer_json: configs.join(TOKENIZER),
        chat_template: chat_template::read(&configs)?,
        weight_bytes,
        parameters: record
            .as_ref()
            .map(|r| parameters(&r.param_map, &r.default_param_map))
            .unwrap_or_default(),
        notes: record.as_ref().map(|r| r.notes.clone()).unwrap_or_default(),
        provenance: Provenance {
            source: source.to_owned(),
            kind,
            sha256,
            spark: record.map(|r| r.provenance),
        },
    })
}

/// Checks what the IRs say of themselves against the config, and that no file of weights is cut short.
fn check_irs(root: &Path, model: &ModelConfig) -> Result<(), Error> {
    let (width, hidden) = (model.vision.hidden_size as u64, model.text.hidden_size as u64);
    let vocabulary = model.vocab_size as u64;
    for ir in IRS {
        let path = root.join(format!("{ir}.xml"));
        let read = Ir::read(&path, &path)?;
        let wrong = |what: &str, is: String, want: u64| Error::Ir {
            path: path.clone(),
            reason: format!("{what} is {is}, {CONFIG} says {want}"),
        };
        let last = |port: Option<&Port>, what: &str, want: u64| match port.map(|p| (p, p.dims.last())) {
            Some((port, Some(Some(dim)))) if *dim != want => Err(wrong(what, shape_text(&port.dims), want)),
            _ => Ok(()),
        };
        let output = read.outputs.first();
        match ir {
            VISION_EMBEDDINGS => last(output, "the shape of its output", width)?,
            MERGER => {
                last(read.input("hidden_states"), "the shape of hidden_states", width)?;
                last(output, "the shape of its output", hidden)?;
            }
            TEXT_EMBEDDINGS => last(output, "the shape of its output", hidden)?,
            _ => {
                last(read.input("inputs_embeds"), "the shape of inputs_embeds", hidden)?;
                last(output, "the shape of its logits", vocabulary)?;
                let (states, layers) = (read.states.len() as u64, model.text.num_hidden_layers as u64);
                if states != 2 * layers {
                    let what = "the number of its KV cache's states";
                    return Err(wrong(what, states.to_string(), 2 * layers));
                }
                for state in &read.states {
                    last(Some(state), "the shape of its KV cache", model.text.head_dim as u64)?;
                }
            }
        }
    }
    Ok(())
}

/// Names of the files in a folder and in its `assets/`; links count as what they lead to, as in the snapshots of
/// Hugging Face's cache.
fn file_names(root: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for prefix in ["", ASSETS] {
        let folder = root.join(prefix);
        if !prefix.is_empty() && !folder.is_dir() {
            continue;
        }
        let failed = |source| Error::Read { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.path().is_file() {
                names.push(format!("{prefix}{}", entry.file_name().to_string_lossy()));
            }
        }
    }
    Ok(names)
}

/// Refuses empty files, which a full disk or an interrupted copy leaves; the bytes of all weights.
fn check_sizes(root: &Path, tokenizer: &Path) -> Result<u64, Error> {
    let size = |path: PathBuf| match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() == 0 => Err(Error::EmptyFile { path }),
        Ok(metadata) => Ok(metadata.len()),
        Err(source) => Err(Error::Read { path, source }),
    };
    size(tokenizer.to_owned())?;
    let mut weight_bytes = 0u64;
    for ir in IRS {
        size(root.join(format!("{ir}.xml")))?;
        weight_bytes = weight_bytes.saturating_add(size(root.join(format!("{ir}.bin")))?);
    }
    Ok(weight_bytes)
}
