//! Reading the small text files of a package: sizes bounded, every error with its file.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::Error;

/// Far above any config; `tokenizer_config.json`, the largest, has a few hundred kilobytes at most.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// The content of a file, `None` if there is none.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, Error> {
    read_text_up_to(path, MAX_TEXT_BYTES)
}

/// As [`read_text`], for files that may be larger.
pub(crate) fn read_text_up_to(path: &Path, limit: u64) -> Result<Option<String>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let size = file.metadata().map_err(failed)?.len();
    let mut text = String::new();
    // One byte more than allowed shows a file that grew, or a device whose size reads as 0.
    let read = file.take(limit + 1).read_to_string(&mut text).map_err(failed)? as u64;
    if read > limit {
        return Err(Error::TooLarge { path: path.to_owned(), size: size.max(read), limit });
    }
    Ok(Some(text))
}

/// A JSON file as `T`, `None` if there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    read_text(path)?.map(|text| parse(path, &text)).transpose()
}

/// JSON text that came from `path` as `T`.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// Makes the errors of one file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checker<'a> {
    pub path: &'a Path,
    /// Put before each field's name, as `vision_config.`.
    pub prefix: &'static str,
}

impl Checker<'_> {
    /// An error about `field`.
    pub fn error(&self, field: &str, problem: impl Into<String>) -> Error {
        let field = format!("{}{field}", self.prefix);
        Error::Value { path: self.path.to_owned(), field, problem: problem.into() }
    }

    /// A dimension that must be there and lie in 1..=`max`.
    pub fn dimension(&self, field: &str, value: Option<u64>, max: u64) -> Result<usize, Error> {
        let value = value.ok_or_else(|| self.error(field, format!("is missing, it must be 1 to {max}")))?;
        if value == 0 || value > max {
            return Err(self.error(field, format!("is {value}, it must be 1 to {max}")));
        }
        Ok(usize::try_from(value).expect("the limits of all dimensions fit 32 bits"))
    }

    /// As [`Checker::dimension`], 32 bits wide.
    pub fn dimension_u32(&self, field: &str, value: Option<u64>, max: u32) -> Result<u32, Error> {
        let value = self.dimension(field, value, max.into())?;
        Ok(u32::try_from(value).expect("it is at most `max`"))
    }

    /// `value / by`, which must have no remainder.
    pub fn quotient(&self, field: &str, value: usize, by_field: &str, by: usize) -> Result<usize, Error> {
        if !value.is_multiple_of(by) {
            return Err(self.error(field, format!("is {value}, it must be a multiple of {by_field}, {by}")));
        }
        Ok(value / by)
    }
}
