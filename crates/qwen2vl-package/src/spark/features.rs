//! The features of a saved annotator: vocabulary, merges, added tokens, and the token ids of generation.
//!
//! Each is a folder of parts as `RDD.saveAsObjectFile` writes them. The order of a map's elements means nothing: ids
//! and ranks are in the values. A single value lies in one of the parts, the others are empty.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qwen2vl_spark_files::object_file;
use qwen2vl_spark_files::object_stream::Value;
use qwen2vl_types::TokenId;

use crate::Error;
use crate::files::FileTree;

/// The features that a package must have.
pub(super) const NEEDED: [&str; 4] = ["vocabulary", "merges", "addedTokens", "generationConfig"];

/// Eight times the vocabulary of Qwen2-VL.
const MAX_ID: i32 = 1 << 20;
/// No token of a byte-level vocabulary comes near.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// What the features hold, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Features {
    /// Tokens by id, added ones included; empty where an id has none.
    pub vocabulary: Vec<String>,
    /// Pairs by rank.
    pub merges: Vec<(String, String)>,
    /// Added tokens by id.
    pub added_tokens: Vec<(TokenId, String)>,
    pub generation: GenerationIds,
}

impl Features {
    pub fn first_added_id(&self) -> u64 {
        self.added_tokens.first().map_or(u64::MAX, |(id, _)| u64::from(*id))
    }

    /// The id of an added token.
    pub fn added(&self, content: &str) -> Option<TokenId> {
        self.added_tokens.iter().find(|(_, c)| c == content).map(|(id, _)| *id)
    }
}

/// `com.johnsnowlabs.ml.ai.util.Generation.GenerationConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct GenerationIds {
    pub bos: TokenId,
    pub eos: TokenId,
    pub pad: TokenId,
    pub vocab_size: u32,
}

/// Where a value stands, for errors.
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    feature: &'static str,
}

impl Place {
    fn error(&self, problem: String) -> Error {
        Error::Value { path: self.path.clone(), field: self.feature.to_owned(), problem }
    }
}

/// Reads all features.
pub(super) fn read(
    tree: &mut dyn FileTree,
    features: &[(&'static str, Vec<usize>)],
    notes: &mut Vec<String>,
) -> Result<Features, Error> {
    let mut found = Features::default();
    for (feature, parts) in features {
        match *feature {
            "vocabulary" => found.vocabulary = tokens_by_id(tree, feature, parts)?,
            "merges" => found.merges = merges(tree, feature, parts)?,
            "addedTokens" => found.added_tokens = added_tokens(tree, feature, parts)?,
            _ => found.generation = generation(tree, feature, parts, notes)?,
        }
    }
    check(tree.path(), &found, notes)?;
    Ok(found)
}

/// Calls `take` with every element of a feature, and how many there were.
fn elements(
    tree: &mut dyn FileTree,
    feature: &'static str,
    parts: &[usize],
    mut take: impl FnMut(&Place, &Value) -> Result<(), Error>,
) -> Result<usize, Error> {
    let mut count = 0;
    for part in parts {
        super::verify_file(tree, *part)?;
        let place = Place { path: tree.location(*part), feature };
        for element in object_file::elements(tree.read(*part)?) {
            let element = element.map_err(|source| Error::SparkFile { path: place.path.clone(), source })?;
            take(&place, &element)?;
            count += 1;
        }
    }
    match count {
        0 => Err(Error::Value {
            path: tree.location(parts[0]),
            field: feature.to_owned(),
            problem: "is empty in all its parts".to_owned(),
        }),
        count => Ok(count),
    }
}

/// An element of `Map[String, Int]`.
fn token_and_id(place: &Place, element: &Value) -> Result<(String, TokenId), Error> {
    let pair = element.as_tuple();
    let (Some(token), Some(id)) =
        (pair.and_then(|(token, _)| token.as_str()), pair.and_then(|(_, id)| id.as_int()))
    else {
        return Err(
            place.error(format!("has {}, it must be a pair of a text and a number", element.describe()))
        );
    };
    if token.len() > MAX_TOKEN_BYTES {
        return Err(
            place.error(format!("has a token of {} bytes, the most is {MAX_TOKEN_BYTES}", token.len()))
        );
    }
    let id = in_range(place, &format!("{token:?}"), id)?;
    Ok((token.to_owned(), id))
}

fn in_range(place: &Place, of: &str, number: i32) -> Result<u32, Error> {
    u32::try_from(number)
        .ok()
        .filter(|_| number < MAX_ID)
        .ok_or_else(|| place.error(format!("has {number} for {of}, it must be 0 to {}", MAX_ID - 1)))
}

/// Puts `value` at `index`; false if there is one already. Ids are below [`MAX_ID`], so the list stays small.
fn put<T: Default + PartialEq>(list: &mut Vec<T>, index: u32, value: T) -> bool {
    let index = index as usize;
    if list.len() <= index {
        list.resize_with(index + 1, T::default);
    }
    let free = list[index] == T::default();
    list[index] = value;
    free
}

fn tokens_by_id(
    tree: &mut dyn FileTree,
    feature: &'static str,
    parts: &[usize],
) -> Result<Vec<String>, Error> {
    let mut vocabulary = Vec::new();
    elements(tree, feature, parts, |place, element| {
        let (token, id) = token_and_id(place, element)?;
        if token.is_empty() {
            return Err(place.error(format!("has an empty token, of id {id}")));
        }
        let problem = format!("has the id {id} twice, the second time for {token:?}");
        put(&mut vocabulary, id, token).then_some(()).ok_or_else(|| place.error(problem))
    })?;
    Ok(vocabulary)
}

fn added_tokens(
    tree: &mut dyn FileTree,
    feature: &'static str,
    parts: &[usize],
) -> Result<Vec<(TokenId, String)>, Error> {
    let mut tokens = BTreeMap::new();
    elements(tree, feature, parts, |place, element| {
        let (token, id) = token_and_id(place, element)?;
        match tokens.insert(id, token) {
            Some(other) => Err(place.error(format!("has the id {id} twice, the first time for {other:?}"))),
            None => Ok(()),
        }
    })?;
    Ok(tokens.into_iter().collect())
}

fn merges(
    tree: &mut dyn FileTree,
    feature: &'static str,
    parts: &[usize],
) -> Result<Vec<(String, String)>, Error> {
    let mut merges = Vec::new();
    let mut last = None;
    let count = elements(tree, feature, parts, |place, element| {
        let (pair, rank) = element.as_tuple().ok_or_else(|| place.error(wrong_merge(element)))?;
        let pair = pair.as_tuple().and_then(|(a, b)| Some((a.as_str()?, b.as_str()?)));
        let (Some((a, b)), Some(rank)) = (pair, rank.as_int()) else {
            return Err(place.error(wrong_merge(element)));
        };
        let rank = in_range(place, &format!("{a:?} {b:?}"), rank)?;
        last = Some(place.clone());
        put(&mut merges, rank, (a.to_owned(), b.to_owned()))
            .then_some(())
            .ok_or_else(|| place.error(format!("has the rank {rank} twice, the second time for {a:?} {b:?}")))
    })?;
    match last {
        // A rank without a pair is lost data: later merges could not be trusted.
        Some(place) if count != merges.len() => Err(place.error(format!(
            "has {count} merges, but ranks up to {}: parts of it are missing",
            merges.len() - 1
        ))),
        _ => Ok(merges),
    }
}

fn wrong_merge(element: &Value) -> String {
    format!("has {}, it must be a pair of a pair of texts and a rank", element.describe())
}

fn generation(
    tree: &mut dyn FileTree,
    feature: &'static str,
    parts: &[usize],
    notes: &mut Vec<String>,
) -> Result<GenerationIds, Error> {
    let mut ids = None;
    let count = elements(tree, feature, parts, |place, element| {
        let field = |name: &str| {
            let value = element.field(name).and_then(Value::as_int);
            let value =
                value.ok_or_else(|| place.error(format!("has no number {name}: {}", element.describe())))?;
            in_range(place, name, value)
        };
        for option in ["beginSuppressTokens", "forcedDecoderIds", "suppressTokenIds"] {
            let set = element.field(option).map(Value::as_option).transpose();
            let set = set.map_err(|source| Error::SparkFile { path: place.path.clone(), source })?;
            if set.flatten().is_some() {
                notes
                    .push(format!("generationConfig.{option} is set; Qwen2-VL has none, and it is not used"));
            }
        }
        ids = Some(GenerationIds {
            bos: field("bosId")?,
            eos: field("eosId")?,
            pad: field("padId")?,
            vocab_size: field("vocabSize")?,
        });
        Ok(())
    })?;
    if count > 1 {
        notes.push(format!("generationConfig holds {count} values, the last is used"));
    }
    Ok(ids.unwrap_or_default())
}

/// Checks the features against each other.
fn check(path: &Path, features: &Features, notes: &mut Vec<String>) -> Result<(), Error> {
    let place = |feature| Place { path: path.join("fields").join(feature), feature };
    for (id, content) in &features.added_tokens {
        match features.vocabulary.get(*id as usize) {
            Some(token) if !token.is_empty() && token != content => {
                let problem = format!("has {content:?} at id {id}, where the vocabulary has {token:?}");
                return Err(place("addedTokens").error(problem));
            }
            _ => {}
        }
    }
    let known: std::collections::HashSet<&str> = features.vocabulary.iter().map(String::as_str).collect();
    for (rank, (a, b)) in features.merges.iter().enumerate() {
        let joined = format!("{a}{b}");
        if let Some(token) = [a.as_str(), b, &joined].into_iter().find(|t| !known.contains(t)) {
            let problem =
                format!("joins {a:?} and {b:?} at rank {rank}, but the vocabulary has no {token:?}");
            return Err(place("merges").error(problem));
        }
    }
    let present = features.vocabulary.iter().filter(|t| !t.is_empty()).count();
    if known.len() - usize::from(known.contains("")) != present {
        return Err(place("vocabulary").error("has the same token under two ids".to_owned()));
    }
    let missing = features.vocabulary.len() - present;
    if missing > 0 {
        notes.push(format!("the vocabulary has no token for {missing} ids"));
    }
    for token in ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|video_pad|>"] {
        if features.added(token).is_none() {
            return Err(place("addedTokens").error(format!("has no {token}, which Qwen2-VL needs")));
        }
    }
    Ok(())
}
