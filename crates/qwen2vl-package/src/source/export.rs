//! A folder as `optimum-cli export openvino` (optimum-intel 2.2.0) writes it: four IRs with their weights, the
//! tokenizer, and the JSON files of transformers.

use std::path::{Path, PathBuf};

use qwen2vl_runtime::ModelFiles;

use crate::configs::{chat_template, generation::GenerationFile, model::Config, processor};
use crate::json::{read_json, read_text};
use crate::{Error, ModelPackage};

const VISION_EMBEDDINGS: &str = "openvino_vision_embeddings_model";
const MERGER: &str = "openvino_vision_embeddings_merger_model";
const TEXT_EMBEDDINGS: &str = "openvino_text_embeddings_model";
const LANGUAGE_MODEL: &str = "openvino_language_model";
/// The four IRs, without the extensions `.xml` and `.bin`.
const IRS: [&str; 4] = [VISION_EMBEDDINGS, MERGER, TEXT_EMBEDDINGS, LANGUAGE_MODEL];

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";

/// Whether a file of this name makes its folder an export.
pub(crate) fn is_marker(name: &str) -> bool {
    name.strip_suffix(".xml").is_some_and(|stem| IRS.contains(&stem))
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
    let mut missing: Vec<String> = IRS
        .iter()
        .flat_map(|ir| [format!("{ir}.xml"), format!("{ir}.bin")])
        .chain([CONFIG.to_owned(), TOKENIZER.to_owned()])
        .filter(|needed| !names.contains(&needed.as_str()))
        .collect();
    let any = |files: &[&str]| files.iter().any(|file| names.contains(file));
    if !any(&[processor::IMAGE_FILE, processor::NESTED_FILE]) {
        missing.push(processor::IMAGE_FILE.to_owned());
    }
    if !any(chat_template::FILES) {
        missing.push(format!("a chat template ({})", chat_template::FILES.join(", ")));
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Incomplete { path: path.to_owned(), missing }) }
}

/// Reads and checks an export folder.
pub(crate) fn open(root: &Path, name: &str) -> Result<ModelPackage, Error> {
    let names = file_names(root)?;
    check_names(root, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let weight_bytes = check_sizes(root)?;
    let config_path = root.join(CONFIG);
    let config_text = read_text(&config_path)?
        .ok_or_else(|| Error::Incomplete { path: root.to_owned(), missing: vec![CONFIG.to_owned()] })?;
    let config = Config::parse(&config_path, &config_text)?;
    let model = config.model_config()?;
    let generation_path = root.join(GENERATION);
    let generation = read_json::<GenerationFile>(&generation_path)?.unwrap_or_default().generation_config(
        &generation_path,
        model.vocab_size,
        config.eos_token_ids(),
    )?;
    let (preprocess, video_preprocess) = processor::read(root, model.geometry)?;
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
        preprocess,
        video_preprocess,
        tokenizer_json: root.join(TOKENIZER),
        chat_template: chat_template::read(root)?,
        weight_bytes,
    })
}

/// Names of the files in a folder; links count as what they lead to, as in the snapshots of Hugging Face's cache.
fn file_names(root: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Read { path: root.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Refuses empty files, which a full disk or an interrupted copy leaves; the bytes of all weights.
fn check_sizes(root: &Path) -> Result<u64, Error> {
    let size = |path: PathBuf| match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() == 0 => Err(Error::EmptyFile { path }),
        Ok(metadata) => Ok(metadata.len()),
        Err(source) => Err(Error::Read { path, source }),
    };
    size(root.join(TOKENIZER))?;
    let mut weight_bytes = 0u64;
    for ir in IRS {
        size(root.join(format!("{ir}.xml")))?;
        weight_bytes = weight_bytes.saturating_add(size(root.join(format!("{ir}.bin")))?);
    }
    Ok(weight_bytes)
}
