//! The parser.

use std::borrow::Cow;
use std::sync::Arc;

use super::class::{
    BLOCK_DATA, ClassDescriptor, ENUM, EXTERNALIZABLE, FieldType, SERIALIZABLE, WRITE_METHOD,
};
use super::cursor::Cursor;
use super::descriptors::class_error;
use super::handles::{Entry, Handles, Tall};
use super::interpret::shorten;
use super::limits::Limits;
use super::modified_utf8;
use super::tag;
use super::value::{Array, Elements, EnumConstant, Object, Value};
use crate::{Error, Reason};

const MAGIC: [u8; 2] = [0xac, 0xed];
const VERSION: u16 = 5;

/// No more than this is reserved for values that have not been read yet.
const FIRST_CAPACITY: usize = 64;

/// Parses a stream that holds one object, with the default limits.
///
/// ```
/// use qwen2vl_spark_files::object_stream::parse;
///
/// let value = parse(b"\xac\xed\x00\x05t\x00\x05hello")?; // new ObjectOutputStream(…).writeObject("hello")
/// assert_eq!(value.as_str(), Some("hello"));
/// # Ok::<(), qwen2vl_spark_files::Error>(())
/// ```
///
/// # Errors
///
/// If the stream is damaged, holds more or less than one object, exceeds a limit, or uses a feature that is not
/// supported (see [`object_stream`](crate::object_stream)).
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    Parser::new(bytes).parse()
}

/// A parser of one stream.
#[derive(Debug)]
pub struct Parser<'a> {
    pub(super) cursor: Cursor<'a>,
    limits: Limits,
    pub(super) handles: Handles,
    n_values: usize,
}

impl<'a> Parser<'a> {
    /// A parser of `bytes` with the default limits.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(bytes, 0),
            limits: Limits::default(),
            handles: Handles::default(),
            n_values: 0,
        }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits.clamped();
        self
    }

    /// The same with offsets counted as if the stream started at `offset`: where it lies in a file.
    #[must_use]
    pub fn at_offset(mut self, offset: u64) -> Self {
        self.cursor.set_base(offset);
        self
    }

    /// Parses the stream.
    ///
    /// # Errors
    ///
    /// As [`parse`].
    pub fn parse(mut self) -> Result<Value, Error> {
        let start = self.cursor.offset();
        let magic: [u8; 2] = self.cursor.array("the magic bytes of a Java object stream")?;
        if magic != MAGIC {
            let format = "Java object stream";
            let reason = Reason::NotThisFormat { format, expected: &MAGIC, found: magic.to_vec() };
            return Err(Error::new(start, reason));
        }
        let version = self.cursor.u16("the version")?;
        if version != VERSION {
            let (format, supported) = ("Java object stream", "5");
            return Err(Error::new(start + 2, Reason::Version { format, found: version.into(), supported }));
        }
        self.resets()?;
        let value = self.content(0)?.value;
        self.resets()?;
        match self.cursor.left() as u64 {
            0 => Ok(value),
            left => Err(self.error(Reason::Trailing { what: "the object of the stream", left })),
        }
    }

    /// `TC_RESET` stands between objects only: all handles are forgotten.
    fn resets(&mut self) -> Result<(), Error> {
        while self.cursor.peek() == Some(tag::RESET) {
            self.cursor.u8("a tag")?;
            self.handles.clear();
        }
        Ok(())
    }

    fn error(&self, reason: Reason) -> Error {
        Error::new(self.cursor.offset(), reason)
    }

    pub(super) fn count_value(&mut self) -> Result<(), Error> {
        self.n_values += 1;
        let (found, limit) = (self.n_values as u64, self.limits.max_values as u64);
        if found > limit {
            return Err(self.error(Reason::Limit { what: "values in the stream", found, limit }));
        }
        Ok(())
    }

    pub(super) fn check_depth(&self, offset: u64, what: &'static str, depth: u32) -> Result<(), Error> {
        let limit = self.limits.max_depth;
        if depth > limit {
            let reason = Reason::Limit { what, found: depth.into(), limit: limit.into() };
            return Err(Error::new(offset, reason));
        }
        Ok(())
    }

    /// An object, array, string, null, …, with `depth` others around it.
    pub(super) fn content(&mut self, depth: u32) -> Result<Tall, Error> {
        self.count_value()?;
        let offset = self.cursor.offset();
        let leaf = |value| Ok(Tall { value, height: 0 });
        match self.cursor.u8("a tag")? {
            tag::NULL => leaf(Value::Null),
            tag::REFERENCE => self.reference(),
            tag::STRING | tag::LONG_STRING => {
                self.cursor.back();
                self.string().map(|text| Tall { value: Value::String(text), height: 0 })
            }
            tag::OBJECT => self.object(offset, depth + 1),
            tag::ARRAY => self.array(offset, depth + 1),
            tag::ENUM => self.enum_constant(offset, depth + 1).and_then(leaf),
            tag::CLASS => self.class_object(depth + 1).and_then(leaf),
            tag::CLASS_DESC => self.new_class(offset, depth + 1).map(Value::Descriptor).and_then(leaf),
            tag => Err(Error::new(offset, tag::refused(tag, "an object"))),
        }
    }

    pub(super) fn handle(&mut self) -> Result<&Entry, Error> {
        let offset = self.cursor.offset();
        let handle = u32::from_be_bytes(self.cursor.array("a handle")?);
        self.handles.get(handle).map_err(|reason| Error::new(offset, reason))
    }

    fn reference(&mut self) -> Result<Tall, Error> {
        Ok(match self.handle()? {
            Entry::Value(tall) => tall.clone(),
            Entry::Class(class) => Tall { value: Value::Descriptor(Arc::clone(class)), height: 0 },
            Entry::Unfinished => unreachable!("the table refuses references to what is unfinished"),
        })
    }

    /// Modified UTF-8 of `length` bytes.
    fn text(&mut self, what: &'static str, length: u64) -> Result<Cow<'a, str>, Error> {
        let start = self.cursor.offset();
        let bytes = self.cursor.take(what, length)?;
        modified_utf8::decode(bytes).map_err(|problem| {
            let reason = Reason::Text { what, encoding: "Java's modified UTF-8", problem: problem.what };
            Error::new(start + problem.at as u64, reason)
        })
    }

    pub(super) fn short_text(&mut self, what: &'static str) -> Result<Cow<'a, str>, Error> {
        let length = self.cursor.u16(what)?;
        self.text(what, length.into())
    }

    /// A string as an object: new, or one that the stream has had.
    pub(super) fn string(&mut self) -> Result<Arc<str>, Error> {
        let offset = self.cursor.offset();
        let what = "a string";
        let text = match self.cursor.u8("a tag")? {
            tag::STRING => self.short_text(what)?,
            tag::LONG_STRING => {
                let length = self.cursor.u64(what)?;
                self.text(what, length)?
            }
            tag::REFERENCE => {
                let tall = self.reference()?;
                return match tall.value {
                    Value::String(text) => Ok(text),
                    other => {
                        let reason = Reason::Kind { expected: what, found: other.describe() };
                        Err(Error::new(offset, reason))
                    }
                };
            }
            tag => return Err(Error::new(offset, tag::refused(tag, what))),
        };
        let text: Arc<str> = text.into();
        let slot = self.handles.assign();
        self.handles.fill(slot, Entry::Value(Tall { value: Value::String(Arc::clone(&text)), height: 0 }));
        Ok(text)
    }

    /// An object after its tag.
    fn object(&mut self, offset: u64, depth: u32) -> Result<Tall, Error> {
        self.check_depth(offset, "the depth of the stream", depth)?;
        let class = self.class(depth)?;
        let slot = self.handles.assign();
        if class.has(ENUM) {
            return Err(class_error(offset, &class.name, "it is an enum, but was written as an object"));
        }
        let mut values = Values::default();
        if class.has(EXTERNALIZABLE) {
            if !class.has(BLOCK_DATA) {
                let (what, name) = ("the externalizable class", shorten(&class.name));
                let supported = "externalizable classes of protocol 2, whose data have an end";
                return Err(Error::new(offset, Reason::Unsupported { what, name, supported }));
            }
            self.annotations(depth)?;
        } else {
            let chain: Vec<&ClassDescriptor> = class.chain().collect();
            for class in chain.into_iter().rev() {
                if !class.has(SERIALIZABLE) {
                    return Err(class_error(
                        offset,
                        &class.name,
                        "it is not serializable, but an object of it is there",
                    ));
                }
                self.class_data(class, depth, &mut values)?;
            }
        }
        let height = values.height + 1;
        self.check_depth(offset, "objects within each other", height)?;
        let object = Object { class, values: values.list.into_boxed_slice(), offset };
        let tall = Tall { value: Value::Object(Arc::new(object)), height };
        self.handles.fill(slot, Entry::Value(tall.clone()));
        Ok(tall)
    }

    /// The fields of one class of an object, and what the class wrote after them.
    fn class_data(&mut self, class: &ClassDescriptor, depth: u32, values: &mut Values) -> Result<(), Error> {
        values.list.reserve(class.fields.len().min(FIRST_CAPACITY));
        for field in &class.fields {
            match field.kind {
                FieldType::Reference => values.push(self.content(depth)?),
                kind => {
                    self.count_value()?;
                    values.list.push(self.primitive(kind)?);
                }
            }
        }
        if class.has(WRITE_METHOD) {
            self.annotations(depth)?;
        }
        Ok(())
    }

    fn primitive(&mut self, kind: FieldType) -> Result<Value, Error> {
        let (cursor, what) = (&mut self.cursor, "a field");
        Ok(match kind {
            FieldType::Bool => Value::Bool(cursor.u8(what)? != 0),
            FieldType::Byte => Value::Byte(cursor.array(what).map(i8::from_be_bytes)?),
            FieldType::Char => Value::Char(cursor.u16(what)?),
            FieldType::Short => Value::Short(cursor.array(what).map(i16::from_be_bytes)?),
            FieldType::Int => Value::Int(cursor.i32(what)?),
            FieldType::Long => Value::Long(cursor.array(what).map(i64::from_be_bytes)?),
            FieldType::Float => Value::Float(cursor.array(what).map(f32::from_be_bytes)?),
            FieldType::Double => Value::Double(cursor.array(what).map(f64::from_be_bytes)?),
            FieldType::Reference => unreachable!("only called for numbers"),
        })
    }

    /// An array after its tag.
    fn array(&mut self, offset: u64, depth: u32) -> Result<Tall, Error> {
        self.check_depth(offset, "the depth of the stream", depth)?;
        let class = self.class(depth)?;
        let slot = self.handles.assign();
        let Some(kind) = FieldType::of_elements(&class.name) else {
            let found = format!("class {}", shorten(&class.name));
            return Err(Error::new(offset, Reason::Kind { expected: "the class of an array", found }));
        };
        let count = self.cursor.count("the length of an array", self.limits.max_elements)?;
        let (elements, height) = match kind {
            FieldType::Reference => {
                let values = self.elements(count, depth)?;
                (Elements::Values(values.list), values.height)
            }
            kind => (self.numbers(kind, count)?, 0),
        };
        self.check_depth(offset, "objects within each other", height + 1)?;
        let tall =
            Tall { value: Value::Array(Arc::new(Array { class, elements, offset })), height: height + 1 };
        self.handles.fill(slot, Entry::Value(tall.clone()));
        Ok(tall)
    }

    fn elements(&mut self, count: usize, depth: u32) -> Result<Values, Error> {
        let left = self.cursor.left();
        if count > left {
            // Each takes a byte at least.
            let (what, needed) = ("the elements of an array", count as u64);
            return Err(self.error(Reason::Truncated { what, needed, left: left as u64 }));
        }
        let mut values = Values::default();
        values.list.reserve(count.min(FIRST_CAPACITY));
        for _ in 0..count {
            values.push(self.content(depth)?);
        }
        Ok(values)
    }

    fn numbers(&mut self, kind: FieldType, count: usize) -> Result<Elements, Error> {
        let cursor = &mut self.cursor;
        Ok(match kind {
            FieldType::Bool => Elements::Bools(cursor.list(count, |[byte]| byte != 0)?),
            FieldType::Byte => Elements::Bytes(cursor.list(count, i8::from_be_bytes)?),
            FieldType::Char => Elements::Chars(cursor.list(count, u16::from_be_bytes)?),
            FieldType::Short => Elements::Shorts(cursor.list(count, i16::from_be_bytes)?),
            FieldType::Int => Elements::Ints(cursor.list(count, i32::from_be_bytes)?),
            FieldType::Long => Elements::Longs(cursor.list(count, i64::from_be_bytes)?),
            FieldType::Float => Elements::Floats(cursor.list(count, f32::from_be_bytes)?),
            FieldType::Double => Elements::Doubles(cursor.list(count, f64::from_be_bytes)?),
            FieldType::Reference => unreachable!("only called for numbers"),
        })
    }

    /// A constant of an enum after its tag.
    fn enum_constant(&mut self, offset: u64, depth: u32) -> Result<Value, Error> {
        let class = self.class(depth)?;
        if !class.has(ENUM) {
            return Err(class_error(offset, &class.name, "it is no enum, but a constant of it is there"));
        }
        let slot = self.handles.assign();
        let name = self.string()?;
        let value = Value::Enum(Arc::new(EnumConstant { class, name, offset }));
        self.handles.fill(slot, Entry::Value(Tall { value: value.clone(), height: 0 }));
        Ok(value)
    }

    /// A class as a value, after its tag.
    fn class_object(&mut self, depth: u32) -> Result<Value, Error> {
        let value = Value::Class(self.class(depth)?);
        let slot = self.handles.assign();
        self.handles.fill(slot, Entry::Value(Tall { value: value.clone(), height: 0 }));
        Ok(value)
    }
}

/// Values of one object or array, and the height of the highest.
#[derive(Default)]
struct Values {
    list: Vec<Value>,
    height: u32,
}

impl Values {
    fn push(&mut self, tall: Tall) {
        self.height = self.height.max(tall.height);
        self.list.push(tall.value);
    }
}
