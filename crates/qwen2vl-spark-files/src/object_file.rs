//! What `RDD.saveAsObjectFile` writes: a SequenceFile of Java-serialized arrays, as a stream of their elements.
//!
//! Spark cuts a partition into groups of ten elements, serializes each group as a Java array of its own, and saves it
//! as the value of a record (`BytesWritable`) without a key (`NullWritable`). A partition without elements is a file
//! without records. Follows `RDD.saveAsObjectFile` and `SparkContext.objectFile` of Spark 3.5.

use std::io::Read;
use std::sync::Arc;

use crate::object_stream::{self, Array, Parser, Value};
use crate::sequence_file::{self, Record, SequenceFile};
use crate::{Error, Reason};

const KEY_CLASS: &str = "org.apache.hadoop.io.NullWritable";
const VALUE_CLASS: &str = "org.apache.hadoop.io.BytesWritable";

/// The elements in one file, in the file's order.
///
/// The iterator ends after the first error, be it of the header or of a record. Offsets of errors count from the start
/// of the file.
///
/// ```no_run
/// use qwen2vl_spark_files::object_file;
///
/// let mut vocabulary = std::collections::HashMap::new();
/// for element in object_file::elements(std::fs::File::open("fields/vocabulary/part-00000").unwrap()) {
///     let element = element?;
///     let (token, id) = element.as_tuple().expect("pairs");
///     vocabulary.insert(token.as_str().expect("text").to_owned(), id.as_int().expect("a number"));
/// }
/// # Ok::<(), qwen2vl_spark_files::Error>(())
/// ```
pub fn elements<R: Read>(reader: R) -> ObjectFile<R> {
    elements_with(reader, sequence_file::Limits::default(), object_stream::Limits::default())
}

/// The same with other limits, those of the SequenceFile and those of each object stream in it.
pub fn elements_with<R: Read>(
    reader: R,
    file: sequence_file::Limits,
    stream: object_stream::Limits,
) -> ObjectFile<R> {
    ObjectFile {
        state: State::Unopened(reader, file),
        limits: stream,
        array: None,
        next: 0,
        record_offset: 0,
    }
}

/// An iterator over the elements of an object file; see [`elements`].
#[derive(Debug)]
pub struct ObjectFile<R> {
    state: State<R>,
    limits: object_stream::Limits,
    array: Option<Arc<Array>>,
    /// Index of the next element of the array.
    next: usize,
    record_offset: u64,
}

#[derive(Debug)]
enum State<R> {
    Unopened(R, sequence_file::Limits),
    Open(Box<SequenceFile<R>>),
    Ended,
}

impl<R: Read> ObjectFile<R> {
    /// Where the record of the last element starts in the file (block-compressed: its block).
    pub fn record_offset(&self) -> u64 {
        self.record_offset
    }

    /// The next record; none at the end of the file.
    fn read_record(&mut self) -> Result<Option<Record>, Error> {
        if matches!(self.state, State::Unopened(..))
            && let State::Unopened(reader, limits) = std::mem::replace(&mut self.state, State::Ended)
        {
            let file = SequenceFile::open_with(reader, limits)?;
            check_classes(&file)?;
            self.state = State::Open(Box::new(file));
        }
        match &mut self.state {
            State::Open(file) => file.next().transpose(),
            _ => Ok(None),
        }
    }

    fn read_next(&mut self) -> Result<Option<Value>, Error> {
        loop {
            if let Some(value) = self.array.as_ref().and_then(|array| array.get(self.next)) {
                self.next += 1;
                return Ok(Some(value));
            }
            let Some(record) = self.read_record()? else { return Ok(None) };
            self.record_offset = record.offset;
            self.array = Some(parse_record(&record, self.limits)?);
            self.next = 0;
        }
    }
}

impl<R: Read> Iterator for ObjectFile<R> {
    type Item = Result<Value, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read_next().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.state = State::Ended;
            self.array = None;
        }
        next
    }
}

fn check_classes<R: Read>(file: &SequenceFile<R>) -> Result<(), Error> {
    let header = file.header();
    // The names start after the magic bytes and the version.
    let key_at = 4;
    let value_at = key_at + 1 + header.key_class.len() as u64;
    for (at, found, name, supported) in [
        (
            key_at,
            &header.key_class,
            KEY_CLASS,
            "org.apache.hadoop.io.NullWritable, as saveAsObjectFile writes it",
        ),
        (
            value_at,
            &header.value_class,
            VALUE_CLASS,
            "org.apache.hadoop.io.BytesWritable, as saveAsObjectFile writes it",
        ),
    ] {
        if found != name {
            let what = if at == key_at { "the class of the keys" } else { "the class of the values" };
            return Err(Error::new(at, Reason::Unsupported { what, name: found.clone(), supported }));
        }
    }
    Ok(())
}

fn parse_record(record: &Record, limits: object_stream::Limits) -> Result<Arc<Array>, Error> {
    let place = Place { record };
    if !record.key.is_empty() {
        let what = "a NullWritable";
        return Err(Error::new(record.offset, Reason::Trailing { what, left: record.key.len() as u64 }));
    }
    let (length, bytes) = record.value.split_first_chunk::<4>().ok_or_else(|| {
        let (what, left) = ("the length of a BytesWritable", record.value.len() as u64);
        place.error(0, Reason::Truncated { what, needed: 4, left })
    })?;
    let length = i32::from_be_bytes(*length);
    if usize::try_from(length) != Ok(bytes.len()) {
        let (what, allowed) = ("the length of a BytesWritable", "what its record has");
        return Err(place.error(0, Reason::OutOfRange { what, found: length.into(), allowed }));
    }
    let value = Parser::new(bytes).at_offset(4).with_limits(limits).parse();
    match value.map_err(|e| place.error(e.offset, e.reason))? {
        Value::Array(array) => Ok(array),
        other => {
            let reason = Reason::Kind { expected: "an array", found: other.describe() };
            // After the length, the magic bytes and the version.
            Err(place.error(8, reason))
        }
    }
}

/// Turns offsets in a record's value into offsets in the file.
struct Place<'a> {
    record: &'a Record,
}

impl Place<'_> {
    fn error(&self, at: u64, reason: Reason) -> Error {
        match self.record.value_offset {
            Some(start) => Error::new(start + at, reason),
            None => Error::new(self.record.offset, Reason::Inflated { offset: at, reason: Box::new(reason) }),
        }
    }
}
